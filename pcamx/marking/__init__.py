"""A person's lesion marks: are they right, and which films are worth marking next?

`check` draws marks on a contact sheet; `suggest` takes a run and a store and ranks films by
`wrong_attention`; `package` writes the chosen ones as the folder that a marking tool imports
(`tool_files`). `pcamx marks` and, with what comes back, `pcamx continue` call them.
"""
