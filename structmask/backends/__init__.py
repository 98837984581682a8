"""Where arrays live and who computes: the backend setting, array helpers, and the kernels that arrays cannot say."""

from structmask.backends.arrays import to_numpy
from structmask.backends.config import BackendError, get_backend, set_backend, use_backend

__all__ = ["BackendError", "get_backend", "set_backend", "to_numpy", "use_backend"]
