"""What lies on the cassette: bones, the bodies made of them, their lesions, and healthy clutter.

Chance comes in as a generator; shapes and what they take from the beam go out, to
`pcamx.data.phantom.film`, which looks at them through the X-ray tube.
"""
