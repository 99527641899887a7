"""The same work by other packages, each called as its documentation says.

What a package needs besides (its wrappers, its own copy of the tokenizer) is made before the clock starts.
"""
