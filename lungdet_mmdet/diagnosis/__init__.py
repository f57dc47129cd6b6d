"""Whether this machine can run the package, and what to do where it cannot.

``tools/doctor.py`` prints it. Nothing of the stack is imported before a check asks for it.
"""
