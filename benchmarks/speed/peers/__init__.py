"""The same work with other packages, each used as its documentation says.

Whatever a package needs (its wrappers, its own copy of the tokenizer) is prepared before the clock starts.
"""
