"""Draws ``page.png``, the page that the demo reads: ``pip install pillow && python make_page.py``."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TITLE = "THE MORNING LOAF"
SUBTITLE = "Notes from a small bakery, No. 12"
BODY = [
    "The oven is lit at four. By five the first",
    "trays are in, and the street smells of rye.",
    "",
    "A good dough cannot be hurried. It rests for",
    "eighteen hours at 6 degrees, and is folded",
    "three times before it meets the stone.",
]
PRICES = [
    ("Country loaf, 900 g", "5.40"),
    ("Rye with caraway", "4.80"),
    ("Butter croissant", "2.10"),
    ("Total", "12.30"),
]
FOOTER = "Open Tuesday to Sunday, 6:30 to 13:00"
PAPER, INK, FADED = 250, 30, 110


def main() -> None:
    page = Image.new("L", (900, 1000), PAPER)
    draw = ImageDraw.Draw(page)

    def write(x: int, y: int, text: str, size: int, ink: int = INK, anchor: str = "la") -> None:
        draw.text((x, y), text, ink, ImageFont.load_default(size), anchor=anchor)

    write(450, 90, TITLE, 58, anchor="mm")
    write(450, 150, SUBTITLE, 26, FADED, anchor="mm")
    draw.line((80, 190, 820, 190), FADED, 2)
    for number, line in enumerate(BODY):
        write(80, 230 + 48 * number, line, 32)
    draw.rectangle((80, 560, 820, 840), outline=FADED, width=2)
    for number, (name, price) in enumerate(PRICES):
        write(110, 585 + 62 * number, name, 32)
        write(790, 585 + 62 * number, price, 32, anchor="ra")
    write(450, 910, FOOTER, 26, FADED, anchor="mm")
    page.save(Path(__file__).with_name("page.png"), optimize=True)


if __name__ == "__main__":
    main()
