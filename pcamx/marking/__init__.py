"""A person's lesion marks: are they right, and which films are worth marking next?"""
