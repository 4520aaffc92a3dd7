"""Compile the pretended driver, once for each PyTorch and compiler; print where it lies."""

from pathlib import Path

from torch.utils import cpp_extension

SOURCE = Path(__file__).with_name("driver.cpp")

if __name__ == "__main__":
    built = cpp_extension.load(
        "pcamx_pretend_gpu", [str(SOURCE)], extra_cflags=["-O0"], is_python_module=False
    )
    print(built)
