"""JSON that fits a schema, whatever the model would rather say.

Given to `generate`, a matcher is stepped inside the engine. `by_hand` is the same loop in the program, one token at a
time, for programs that want to decide something in between.
"""

import json

from inferlet import Context, Grammar, Matcher, Model, Sampler, runtime, session

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{2,11}$"},
        "flour": {"enum": ["rye", "wheat", "spelt"]},
        "minutes": {"type": "integer", "minimum": 5, "maximum": 90},
        "vegan": {"type": "boolean"},
    },
    "required": ["name", "flour", "minutes", "vegan"],
}


def by_hand(ctx: Context, matcher: Matcher, sampler: Sampler) -> str:
    """What ``generate_text(sampler, logit_mask=matcher)`` gives."""
    ctx.cue()
    ctx.flush()
    tokens: list[int] = []
    while True:
        mask = matcher.next_token_logit_mask()
        chosen = ctx.generate(sampler, max_tokens=1, logit_mask=mask, auto_flush=False).tokens()
        if not chosen:  # the model chose to stop, which the mask allows only where the text is whole
            return ctx.model.tokenizer().decode(tokens)
        matcher.accept_tokens(chosen)
        tokens += chosen


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    schema = input.get("schema", SCHEMA)
    matcher = Matcher(Grammar.from_json_schema(json.dumps(schema)), model.tokenizer())
    with Context(model) as ctx:
        ctx.system(f"Answer in JSON of this schema: {json.dumps(schema)}")
        ctx.user(input.get("prompt", "Invent a bread."))
        if input.get("by_hand"):
            text = by_hand(ctx, matcher, Sampler.greedy())
        else:
            text = ctx.generate_text(Sampler.greedy(), logit_mask=matcher)
    session.send(text)
    return json.loads(text)
