"""SVG elements as markup. Every text and every attribute value is escaped here."""

from __future__ import annotations

from markupsafe import Markup


def svg_element(tag: str, *children: str, **attributes: object) -> Markup:
    """Return one element with its children.

    Parameters
    ----------
    tag
        Name of the element.
    children
        Text, which is escaped, or elements, which are markup already.
    attributes
        Attributes by name. `class_` stands for class, `fill_opacity` for fill-opacity. Attributes of None are left out,
        and floats are written with at most six significant digits.

    Examples
    --------
    >>> svg_element("text", "a < b", x=1.5, class_="muted")
    Markup('<text x="1.5" class="muted">a &lt; b</text>')
    """
    # Markup escapes arguments of `format` and items of `join`, except those that are markup themselves.
    written = svg_attributes(**attributes)
    opening = Markup("<{}{}{}").format(tag, " " if written else "", written)
    if not children:
        return opening + Markup("/>")
    return opening + Markup(">") + Markup("").join(children) + Markup("</{}>").format(tag)


def svg_attributes(**attributes: object) -> Markup:
    """Return attributes as markup, separated by spaces; names and values as in `svg_element`."""
    return Markup(" ").join(
        Markup('{}="{}"').format(name.rstrip("_").replace("_", "-"), f"{value:g}" if isinstance(value, float) else value)
        for name, value in attributes.items()
        if value is not None
    )


def svg_figure(label: str, view_box: tuple[float, float, float, float], *children: str, **attributes: object) -> Markup:
    """Return an `<svg>` element with an accessible label and a view box of left, top, width and height."""
    box = " ".join(f"{number:g}" for number in view_box)
    return svg_element("svg", *children, role="img", aria_label=label, viewBox=box, **attributes)
