"""Report: an executed notebook as one page, and its methods and protocol in words."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "answer_section": ["answer", "box", "confirmed", "decisions"],
        "conclusion_section": ["conclusion"],
        "limits_section": ["budget", "failing_seeds"],
        "methods_section": ["methods", "policies"],
        "page": ["record_links", "write_html"],
        "protocol_section": ["alike", "contrasts", "deviations", "protocol"],
        "words": ["shown"],
    },
)
