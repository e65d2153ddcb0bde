"""The doors through which the bytes of strangers come in: every file of a user's is opened here, under limits.

Whatever is wrong with a file is an `InputError`, found before anything of its claimed size is allocated.
"""
