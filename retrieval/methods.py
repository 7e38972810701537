"""The retrieval methods by name."""

from __future__ import annotations

from streamvlm.retrieval.clusters import Clusters
from streamvlm.retrieval.mean_key import MeanKey
from streamvlm.retrieval.pages import Pages
from streamvlm.retrieval.recency import Recency
from streamvlm.retrieval.representatives import Method
from streamvlm.retrieval.top_tokens import TopTokens

METHODS: dict[str, type[Method]] = {m.name: m for m in (MeanKey, TopTokens, Clusters, Pages, Recency)}


def method(name: str) -> Method:
    """The method called `name`, with its defaults.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}, must be one of {', '.join(METHODS)}")
    return METHODS[name]()
