"""What is said in the agentic work. Fixed text: the tools, questions and answers of real work, only smaller.

In what the model says, ``‹`` and ``›`` enclose what it decides; ``«`` and ``»`` a word that it chooses from a few, none
of which begin alike. The rest can be known when it comes: keys of JSON, the arguments of the chosen tool, a heading
that was chosen before, what a sum comes to. ``####`` is the number of the agent, in four digits.
"""

from typing import NamedTuple


class Call(NamedTuple):
    """A tool's call, and what the tool says."""

    call: str
    result: str


# ReAct

REACT_SYSTEM = """You answer for a shop of bakery tools. Call one tool at a time, as JSON. In the end answer in plain
text and cite what the tools said.
find_customer(email): the customer and the orders
get_order(order): items and parcels
locate(parcel): where it is
stock(item): pieces in each store
return_item(order, item, reason): a label for it
print_label(parcel): a new one
note(customer, text): write into the file of a customer"""

REACT_QUESTION = "mira####@hearth.example writes: the bowl of my mixer is cracked, and one parcel never came."

REACT_CALLS = [
    Call(
        '{"tool": "«find_customer»", "email": "‹mira####@hearth.example›"}',
        '{"customer": "C-####-88", "name": "Mira Lindqvist", "orders": ["A-####-17"]}',
    ),
    Call(
        '{"tool": "«get_order»", "order": "‹A-####-17›"}',
        '{"items": {"MX20-STEEL": "spiral mixer 20 l", "BK7-RATTAN": "oval basket"}, '
        '"parcels": ["P-####-4401", "P-####-4402"]}',
    ),
    Call('{"tool": "«locate»", "parcel": "‹P-####-4401›"}', '{"state": "delivered", "on": "2026-03-02"}'),
    Call(
        '{"tool": "«locate»", "parcel": "‹P-####-4402›"}',
        '{"state": "held at Malmo South", "why": "label cannot be read"}',
    ),
    Call('{"tool": "«stock»", "item": "‹MX20-STEEL›"}', '{"Lund": 0, "Malmo South": 3}'),
    Call(
        '{"tool": "«return_item»", "order": "‹A-####-17›", "item": "‹MX20-STEEL›", "reason": "‹bowl is cracked›"}',
        '{"return": "R-####-903", "label": "shop.example/r/####-903"}',
    ),
    Call('{"tool": "«print_label»", "parcel": "‹P-####-4402›"}', '{"parcel": "P-####-4402", "arrives": "2026-03-06"}'),
    Call(
        '{"tool": "«note»", "customer": "‹C-####-88›", "text": "‹R-####-903 for MX20-STEEL›"}',
        '{"noted": true}',
    ),
]

REACT_ANSWER = (
    "‹Mira Lindqvist sends the spiral mixer 20 l back with shop.example/r/####-903. P-####-4402 was held at Malmo "
    "South, label cannot be read; it arrives 2026-03-06.›"
)

# Swarm

SWARM_SYSTEM = """Four people prepare a market stall. Each writes one message a round, as JSON, to the next at the
table. Keep to facts that were said: the stall is 3 m wide, power is 2300 W, doors open at 07:30, rain is likely."""

SWARM_ROLES = [
    "You are Ada of team ####. You plan the day.",
    "You are Ben of team ####. You bake: rye 40, buns 120, tarts 24.",
    "You are Cleo of team ####. You drive the van, 1.9 t, Gate 4.",
    "You are Dov of team ####. You sell, and count the till.",
]

#: By round, then by member. Member N writes to member N + 1.
SWARM_MESSAGES = [
    [
        '{"to": "Ben", "about": "«power»", "say": "‹power is 2300 W›"}',
        '{"to": "Cleo", "about": "«load»", "say": "‹rye 40, buns 120, tarts 24›"}',
        '{"to": "Dov", "about": "«gate»", "say": "‹van at Gate 4, 06:50›"}',
        '{"to": "Ada", "about": "«till»", "say": "‹float is 150 in coins›"}',
    ],
    [
        '{"to": "Ben", "about": "«till»", "say": "‹float is 150 in coins›"}',
        '{"to": "Cleo", "about": "«oven»", "say": "‹oven takes 2300 W, no kettle›"}',
        '{"to": "Dov", "about": "«load»", "say": "‹I load rye 40, buns 120›"}',
        '{"to": "Ada", "about": "«gate»", "say": "‹I meet the van at Gate 4, 06:50›"}',
    ],
    [
        '{"to": "Ben", "about": "«gate»", "say": "‹the van is at Gate 4, 06:50›"}',
        '{"to": "Cleo", "about": "«till»", "say": "‹I bring 150 in coins›"}',
        '{"to": "Dov", "about": "«oven»", "say": "‹no kettle, oven takes 2300 W›"}',
        '{"to": "Ada", "about": "«load»", "say": "‹tarts 24 go to the front›"}',
    ],
    [
        '{"to": "Ben", "about": "«rain»", "say": "‹rain is likely, cover the tarts›"}',
        '{"to": "Cleo", "about": "«gate»", "say": "‹be at Gate 4, 06:50›"}',
        '{"to": "Dov", "about": "«till»", "say": "‹Ben brings 150 in coins›"}',
        '{"to": "Ada", "about": "«oven»", "say": "‹then cold milk, no kettle›"}',
    ],
    [
        '{"to": "Ben", "about": "«load»", "say": "‹tarts 24 go to the front›"}',
        '{"to": "Cleo", "about": "«rain»", "say": "‹cover the tarts, rain is likely›"}',
        '{"to": "Dov", "about": "«gate»", "say": "‹Gate 4, 06:50, I call you›"}',
        '{"to": "Ada", "about": "«till»", "say": "‹Ben brings 150 in coins›"}',
    ],
    [
        '{"to": "Ben", "about": "«oven»", "say": "‹cold milk, no kettle›"}',
        '{"to": "Cleo", "about": "«load»", "say": "‹tarts 24 go in last›"}',
        '{"to": "Dov", "about": "«rain»", "say": "‹I have covers, rain is likely›"}',
        '{"to": "Ada", "about": "«gate»", "say": "‹Cleo calls me at Gate 4›"}',
    ],
    [
        '{"to": "Ben", "about": "«till»", "say": "‹150 in coins, before 07:30›"}',
        '{"to": "Cleo", "about": "«oven»", "say": "‹oven goes in first, 2300 W›"}',
        '{"to": "Dov", "about": "«load»", "say": "‹tarts 24 go in last›"}',
        '{"to": "Ada", "about": "«rain»", "say": "‹Cleo has covers›"}',
    ],
    [
        '{"to": "Ben", "about": "«done»", "say": "‹doors open at 07:30, all set›"}',
        '{"to": "Cleo", "about": "«done»", "say": "‹rye 40, buns 120, tarts 24 set›"}',
        '{"to": "Dov", "about": "«done»", "say": "‹oven in first, tarts 24 go in last›"}',
        '{"to": "Ada", "about": "«done»", "say": "‹150 in coins, doors open at 07:30›"}',
    ],
]

# Tree of thought

TREE_SYSTEM = """Reach 24 with each number once, by + - * /. One step takes two numbers and says what is left, as in \
4 * 6 = 24 (left: 24 1). Judge a step by one word: sure, maybe or never."""

TREE_PROBLEM = "Puzzle ####: 3 4 6 8"

TREE_JUDGE = "Can what is left reach 24?"

TREE_GO_ON = "Next step."

#: A step by its path, and the word on it. What a sum comes to, and what is left, a program reckons by itself.
TREE_STEPS = {
    "a": ("‹8 - 4› = 4 (left: 3 4 6)", "«maybe»"),
    "b": ("‹6 - 3› = 3 (left: 3 4 8)", "«maybe»"),
    "aa": ("‹3 * 4› = 12 (left: 6 12)", "«never»"),
    "ab": ("‹6 / 3› = 2 (left: 2 4)", "«never»"),
    "ba": ("‹8 * 3› = 24 (left: 4 24)", "«never»"),
    "bb": ("‹4 - 3› = 1 (left: 1 8)", "«never»"),
    "aaa": ("‹12 + 6› = 18 (left: 18)", "«never»"),
    "aab": ("‹12 * 6› = 72 (left: 72)", "«never»"),
    "aba": ("‹4 * 2› = 8 (left: 8)", "«never»"),
    "abb": ("‹4 + 2› = 6 (left: 6)", "«never»"),
    "baa": ("‹24 / 4› = 6 (left: 6)", "«never»"),
    "bab": ("‹24 - 4› = 20 (left: 20)", "«never»"),
    "bba": ("‹8 * 1› = 8 (left: 8)", "«never»"),
    "bbb": ("‹8 + 1› = 9 (left: 9)", "«never»"),
}

# Skeleton of thought

SKELETON_SYSTEM = """You write reports from notes. First the headings as a JSON list, then each section alone, as JSON.
Keep to the words of the notes."""

SKELETON_NOTES = """Report ####.
At 04:10 the deck oven lost heat, 240 C fell to 90 C in twenty minutes.
Fuse F3 had burnt out, as the contact of the lower heater was loose.
We lost 60 loaves of the early batch, 410 euros.
Lena moved the late batch to the rack oven.
The fuse was changed at 05:35, the contact was tightened at 06:20."""

#: Heading and text. The heading is known when the text is written.
SKELETON_SECTIONS = [
    ("What happened", "‹At 04:10 the deck oven lost heat, 240 C fell to 90 C in twenty minutes.›"),
    ("Cause", "‹Fuse F3 had burnt out, as the contact of the lower heater was loose.›"),
    ("Damage", "‹We lost 60 loaves of the early batch, 410 euros.›"),
    ("First help", "‹Lena moved the late batch to the rack oven.›"),
    ("Repair", "‹The fuse was changed at 05:35, the contact was tightened at 06:20.›"),
    ("Lesson", "‹The contact of the lower heater is checked after each service.›"),
]

# Prefix tree

PREFIX_SYSTEM = """You know the handbook of a bakery. Answer as JSON, with the number of the rule.
1.1 Rye rests for 24 hours. 1.2 Wheat is sold on the day. 1.3 Old bread goes to the farm. 1.4 Crumbs are kept dry.
2.1 Ovens start at 03:30. 2.2 Stone is brushed daily. 2.3 Steam is let out first. 2.4 Doors stay shut for 10 minutes.
3.1 Hands are washed each hour. 3.2 Hair is under a cap. 3.3 Rings are left at home. 3.4 Cuts wear a blue plaster.
4.1 Cash is counted twice. 4.2 Cards from 5 euros. 4.3 Receipts are always given. 4.4 Tips are shared weekly."""

PREFIX_DESK = "This is desk ####."

#: A topic, and its questions with their answers.
PREFIX_TOPICS = [
    (
        "About bread.",
        [
            ("How long does rye rest?", '{"rule": "‹1.1›", "answer": "‹Rye rests for 24 hours.›"}'),
            ("When is wheat sold?", '{"rule": "‹1.2›", "answer": "‹Wheat is sold on the day.›"}'),
            ("Where does old bread go?", '{"rule": "‹1.3›", "answer": "‹Old bread goes to the farm.›"}'),
            ("And crumbs?", '{"rule": "‹1.4›", "answer": "‹Crumbs are kept dry.›"}'),
        ],
    ),
    (
        "About ovens.",
        [
            ("When do they start?", '{"rule": "‹2.1›", "answer": "‹Ovens start at 03:30.›"}'),
            ("Who cleans the stone?", '{"rule": "‹2.2›", "answer": "‹Stone is brushed daily.›"}'),
            ("What about steam?", '{"rule": "‹2.3›", "answer": "‹Steam is let out first.›"}'),
            ("May I open the door?", '{"rule": "‹2.4›", "answer": "‹Doors stay shut for 10 minutes.›"}'),
        ],
    ),
    (
        "About hygiene.",
        [
            ("When do I wash?", '{"rule": "‹3.1›", "answer": "‹Hands are washed each hour.›"}'),
            ("And my hair?", '{"rule": "‹3.2›", "answer": "‹Hair is under a cap.›"}'),
            ("May I wear a ring?", '{"rule": "‹3.3›", "answer": "‹Rings are left at home.›"}'),
            ("I cut myself.", '{"rule": "‹3.4›", "answer": "‹Cuts wear a blue plaster.›"}'),
        ],
    ),
    (
        "About money.",
        [
            ("How is cash counted?", '{"rule": "‹4.1›", "answer": "‹Cash is counted twice.›"}'),
            ("Are cards taken?", '{"rule": "‹4.2›", "answer": "‹Cards from 5 euros.›"}'),
            ("Is a receipt needed?", '{"rule": "‹4.3›", "answer": "‹Receipts are always given.›"}'),
            ("Who gets the tips?", '{"rule": "‹4.4›", "answer": "‹Tips are shared weekly.›"}'),
        ],
    ),
]

# Constrained JSON

RECORDS_SYSTEM = "You read delivery notes. Give each line as JSON: article, name, origin, kilograms, organic."

RECORDS_NOTE = """Delivery ####:
RY-1150 rye flour, mill Hallbygge, 250 kg, organic
WH-0550 wheat flour, mill Hallbygge, 500 kg
SP-0630 spelt flour, Kornvik farm, 75 kg, organic
OA-0010 rolled oats, Kornvik farm, 40 kg
SA-0002 sea salt, Lagun works, 25 kg
SE-0311 sesame seed, Tilal trade, 20 kg, organic
SU-0040 beet sugar, Ortofta works, 100 kg
YE-0007 fresh yeast, Jastbol, 12 kg"""

#: What the model is to read out of each line: article, name, origin, kilograms, whether it is organic.
RECORDS = [
    ("RY-1150", "rye flour", "mill Hallbygge", 250, True),
    ("WH-0550", "wheat flour", "mill Hallbygge", 500, False),
    ("SP-0630", "spelt flour", "Kornvik farm", 75, True),
    ("OA-0010", "rolled oats", "Kornvik farm", 40, False),
    ("SA-0002", "sea salt", "Lagun works", 25, False),
    ("SE-0311", "sesame seed", "Tilal trade", 20, True),
    ("SU-0040", "beet sugar", "Ortofta works", 100, False),
    ("YE-0007", "fresh yeast", "Jastbol", 12, False),
]
