"""The marking tools that `pcamx marks suggest --to` writes for; names alone, so that the command
line, which lists them, answers at once."""

TOOLS = {
    "label-studio": "pcamx.marking.tool_files:label_studio",
    "cvat": "pcamx.marking.tool_files:cvat",
    "labelme": "pcamx.marking.tool_files:labelme",
    "coco": "pcamx.marking.tool_files:coco",
}
"""What writes a tool's files, as `pcamx.catalogue.resolve` reads it."""
