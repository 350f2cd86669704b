"""The papers' ideas, a paper to a name, and in ``networks`` the ordinary networks they are compared with.

- ``<paper>.py`` holds what a run can name: options of networks and training methods, and their closed-form cost. It is
  imported to find them, so nothing in it imports torch or torchvision before ``build()`` or ``start()`` is called.
- ``<paper>_<part>.py`` holds what they build: modules and methods. It may import torch, and nothing scans it: only
  ``build()`` and ``start()`` import it.
"""

import pkgutil


def names() -> list[str]:
    """The papers: every module here that is no part of another, as ``thriftynet_recursion`` is of ``thriftynet``."""
    modules = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(name for name in modules if not any(name.startswith(f"{other}_") for other in modules))
