"""Short stories written by a grammar: a text to train on that needs no download.

They are part of the package, not of `examples/`, because the installed `gpt2 demo` and `gpt2
stories` need them as much as the tests and the pages of the docs do.
"""
