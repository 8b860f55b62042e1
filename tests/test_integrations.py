"""Optional libraries: what gradprix says without them."""

import pytest

from gradprix.integrations.optional import require


def test_a_missing_library_is_named_with_its_extra() -> None:
    with pytest.raises(ImportError, match=r"no_such_library is not installed: pip install 'gradprix\[lightning\]'"):
        require("no_such_library.part", "lightning")
