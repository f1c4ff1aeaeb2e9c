"""What stands for a name of CNTK's API that cogkit does not have."""


class Missing:
    """Can be imported and be a base class, but not used: calling it or asking it for anything raises `AttributeError`."""

    def __init__(self, name: str):
        self._name = name

    def _refuse(self, *args, **kwargs):
        raise AttributeError(f"cogkit has no {self._name.partition('.')[2]}")

    __call__ = _refuse

    def __getattr__(self, key: str):
        if key.startswith("__"):
            raise AttributeError(key)
        self._refuse()

    def __mro_entries__(self, bases):
        return (type(self._name.rpartition(".")[2], (), {"__init__": self._refuse}),)

    def __repr__(self) -> str:
        return f"<{self._name}: not in cogkit>"
