"""Loops in C++ for what is drawn and written, where they are built; the same numbers as without them, sooner.

`bitline.mvm.native` has the compiled module, above all that draws and writes: it is set here when that is imported.
"""

from typing import Any

native: Any = None
"""the compiled module; None where it is not built or not asked for"""
