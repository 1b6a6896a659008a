"""Sections -> one HTML file that needs no network."""

import html
import importlib
import platform
from dataclasses import dataclass, field

from figures import Figure
from plotly.io import to_html
from plotly.offline import get_plotlyjs

PACKAGES = ("skdmap", "numpy", "scipy", "sklearn", "torch", "matplotlib", "plotly")
STYLE = """
body { font: 16px/1.5 Georgia, serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; }
h1, h2, th, caption, figcaption { font-family: Helvetica, Arial, sans-serif; }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; margin-top: 2.5rem; }
.claim { color: #555; font-style: italic; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.8rem 0; }
caption { text-align: left; color: #555; padding: 0.2rem 0; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
figure { margin: 1rem 0; }
figcaption { font-size: 0.85rem; color: #555; }
@media print { .live { display: none; } }
"""


@dataclass(frozen=True)
class Table:
    """Rows of cells with a caption."""

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Section:
    """One question: what is claimed, what was found, tables and figures."""

    code: str
    question: str
    claim: str
    sentences: list[str]
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def report_html(
    title: str, sections: list[Section], appendix: list[Table], made: list[str], seed: int
) -> str:
    """Return the whole report as text."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    body.append(
        "<p>Claims are those of Fjellström and Nyström, <i>Deep learning, stochastic gradient "
        "descent and diffusion maps</i>, 2022 (arXiv:2204.01365). Their networks, data and "
        "settings are not known to us; what follows is what these settings gave. Every sentence "
        f"about a finding is computed from the numbers of this run. Seed {seed}.</p>"
    )
    body.append("<h2>In short</h2><ul>")
    for section in sections:
        body.append(
            f"<li><a href='#{section.code}'>{section.code}</a>: "
            f"{html.escape(section.sentences[-1])}</li>"
        )
    body.append("</ul>")
    for section in sections:
        body += section_html(section)
    body.append("<section id='how'><h2>How this was made</h2>")
    body += [f"<p>{html.escape(sentence)}</p>" for sentence in made]
    versions = [(name, importlib.import_module(name).__version__) for name in PACKAGES]
    versions.append(("Python", platform.python_version()))
    versions.append(("machine", f"{platform.machine()}, {platform.system()}"))
    for table in [*appendix, Table("Versions", ("package", "version"), versions)]:
        body.append(table_html(table))
    body.append("</section>")
    head = (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}"
        f"</title><link rel='icon' href='data:,'><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>"
    )
    return head + "\n".join(body) + "</body></html>\n"


def section_html(section: Section) -> list[str]:
    """Return one section as pieces of HTML."""
    parts = [
        f"<section id='{section.code}'><h2>{section.code}: {html.escape(section.question)}</h2>",
        f"<p class='claim'>{html.escape(section.claim)}</p>",
        "<p>" + html.escape(" ".join(section.sentences)) + "</p>",
    ]
    parts += [table_html(table) for table in section.tables]
    for figure in section.figures:
        if figure.live is not None:
            live = to_html(figure.live, include_plotlyjs=False, full_html=False)
            parts.append(f"<div class='live'>{live}</div>")
        caption = html.escape(figure.title)
        parts.append(
            f"<figure><img alt='{caption}' src='{figure.data_uri}'>"
            f"<figcaption>{caption}{' (static)' if figure.live is not None else ''}</figcaption>"
            "</figure>"
        )
    return [*parts, "</section>"]


def table_html(table: Table) -> str:
    """Return a table under its caption."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    return f"<div class='scroll'><table>{caption}<tr>{head}</tr>{lines}</table></div>"
