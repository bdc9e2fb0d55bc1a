from __future__ import annotations

import gc

from corten.daemon.service import set_aside


def test_what_a_start_has_made_is_not_looked_through_again() -> None:
    made = [[] for _ in range(1000)]  # type: ignore[var-annotated] # empty
    gc.disable()
    try:
        set_aside()
        assert gc.isenabled()
        assert gc.get_freeze_count() > len(made)
        assert not any(found is made for found in gc.get_objects())
    finally:
        gc.enable()
        gc.unfreeze()
