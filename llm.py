"""Every model by role: asked, counted, stored.

Promises: every finished call is in the store before its answer is used, and none is made twice (`sample` tells apart
those that ask the same); whatever answers is asked in the same way, as a `Model`; the budget counts calls in flight;
no key is logged, stored, or seen in a traceback, a repr, a child process or a core dump.
Try it: `await Models({"agent": ModelSpec.parse("qwen3:8b@ollama")}, Store("store.sqlite")).chat("agent", messages)`
"""

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import standins
from errors import AnswerError, ContextOverflow, DesignError, InfrastructureError, UserError
from models import MANUAL, MOST_OUTPUT, OFFLINE, RECORDED
from models.answers import extract_code, extract_json, is_schema
from models.credentials import PROVIDERS, Keys, check_url, is_local
from models.endpoint import HINTS, RULES, Endpoint, Model, Patience, Question
from models.fair_queue import FairQueue
from models.flights import Flight, Flights
from models.manual import Manual
from models.prices import Budget, Price, price
from models.recorded import Recorded
from models.replies import Reply, without_surrogates
from models.store import BY, TOKENS, TOTALS, Call, Store

__all__ = ["Keys", "Model", "ModelSpec", "Models", "Patience", "is_local"]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
MOST_ANSWERS = 3  # that are read before it is given up, each sent back with the error
DRAIN_SECONDS = 5.0  # for the calls in flight when a run stops
BARREN = 10  # questions in a row without an answer: then the endpoint is at fault, not an answer
AGAIN = "Your answer could not be used. Give the whole answer again, in the form that was asked for."


class StandIn(Model):
    """What plays without a key. The same question has the same answer, so nothing is stored."""

    stored = False

    async def ask(self, question: Question) -> Reply:
        if question.texts:
            return Reply("", vectors=tuple(standins.embed(list(question.texts))))
        return Reply(standins.chat(question.role, list(question.messages), question.schema, question.seed))


# Names of models that no endpoint has, with their class, which is made from the run's folder and its log.
NAMED: dict[str, type[Model]] = {OFFLINE: StandIn, MANUAL: Manual, RECORDED: Recorded}


@dataclass(frozen=True)
class ModelSpec:
    """A model as on the command line: `name`, `name:effort`, either with `@provider` or `@url`."""

    name: str  # may hold ":" itself, as Ollama's do
    effort: str = ""  # one of EFFORTS, empty for the model's own
    base_url: str = ""  # empty for $OPENAI_BASE_URL, else OpenAI

    @classmethod
    def parse(cls, text: str, role: str = "") -> "ModelSpec":
        """Raises UserError where `text` is no model, or none for the `role`."""
        name, at, place = text.strip().partition("@")
        rest, _, effort = name.rpartition(":")
        if effort not in EFFORTS:
            rest, effort = name, ""
        url = PROVIDERS[place][0] if place in PROVIDERS else place
        if at and not url.startswith(("http://", "https://")):
            raise UserError(f"model {text!r}: after @ comes http://host:port/v1 or one of {', '.join(PROVIDERS)}")
        if not re.fullmatch(r"\S+", rest) or (rest in NAMED and (effort or at)):
            kinds = f"{', '.join(NAMED)}, name, name:effort, or one of the last two with @provider or @url"
            raise UserError(f"model {text!r} is none of {kinds}")
        if role and rest in NAMED and role not in NAMED[rest].roles:
            raise UserError(f"--{role}-model cannot be {rest}: it plays {', '.join(NAMED[rest].roles)}")
        return cls(rest, effort, check_url(url) if at else "")

    @property
    def at_endpoint(self) -> bool:
        return self.name not in NAMED  # so it may cost money

    def __str__(self) -> str:
        return self.name + (self.effort and f":{self.effort}") + (self.base_url and f"@{self.base_url}")


class Models(contextlib.AbstractAsyncContextManager):
    """Every model of a run, by role, behind one store and one budget. `in_flight` limits the calls of each endpoint;
    `prices` (by name of model) come before the list prices. Raises UserError for a missing key, and for a budget in
    dollars that a model without a price cannot keep."""

    def __init__(self, specs: Mapping[str, ModelSpec], store: Store, *, in_flight: int = 10,
                 budget_usd: float | None = None, budget_tokens: int | None = None,
                 prices: Mapping[str, Price] | None = None, log: Callable[[str], None] = print,
                 keys: Keys | None = None, patience: Patience | None = None):  # fmt: skip
        keys, patience = Keys.read() if keys is None else keys, patience or Patience()
        self.store, self._prices = store, prices or {}
        self.specs = {role: replace(spec, base_url=spec.base_url or keys.base_url) if spec.at_endpoint else spec
                      for role, spec in specs.items()}  # fmt: skip
        self._models: dict[str, Model] = {}  # by address, or by name where no endpoint has it
        for place, spec in {spec.base_url or spec.name: spec for spec in self.specs.values()}.items():
            if spec.at_endpoint:
                self._models[place] = Endpoint(place, keys.of(place), patience, log, store, place != keys.base_url)
            else:
                self._models[place] = NAMED[spec.name](store.path.parent, log)
        self._queues = {place: FairQueue(in_flight) for place in self._models}  # of calls
        self._in_dollars = budget_usd is not None  # so that each call needs a price
        paid = [one for one in self.specs.values() if not self._models[one.base_url or one.name].free]
        for name in sorted({one.name for one in paid if not price(one.name, self._prices, one.base_url)}):
            unknown = f"the price of {name} is unknown: --price {name}=in,cached,out"
            if self._in_dollars:
                raise UserError(f"--budget-usd cannot be kept: {unknown}")
            log(f"{unknown}; its calls are not in the dollars")
        self._budget, self._flights = Budget(budget_usd, budget_tokens, log), Flights()
        self._barren: dict[str, list[list[str]]] = {}  # by model, keys of unanswered questions in a row
        self._usage: dict[tuple[str, ...], Counter] = {}  # of finished calls, by role, model, design and stage
        self._totals = Counter()
        store.set_aside("fault", ["context"])  # an endpoint that stopped a run may have got a larger one
        for row in store.usage():  # of a run that goes on
            self._count({**row, "usd": row["usd"] or 0.0})

    async def load(self) -> None:
        """Have the clients ready before the first call: their imports take a second."""
        for model in self._models.values():
            await asyncio.to_thread(model.open)

    async def __aexit__(self, *exception) -> None:
        """Close all connections; calls that were sent have DRAIN_SECONDS to end, for they are paid."""
        await self._flights.aclose(DRAIN_SECONDS)
        for model in self._models.values():
            await model.aclose()

    async def chat(self, role: str, messages: Sequence[dict], *, schema: dict | None = None, **asked) -> str:
        """The model's answer to chat messages, without its thoughts; with a `schema` as bare JSON, but an agent's as it
        is; the last one where none is usable. `asked`: `model`, another one at the role's endpoint; `limit`, most tokens
        of the answer; other fields of `Question`. Raises InfrastructureError, BudgetError, ContextOverflow."""
        if role == "agent" or not is_schema(schema):
            return (await self._complete(self._question(role, messages, schema=schema, **asked))).answer
        try:
            return json.dumps(await self.ask_json(role, messages, schema, **asked))
        except AnswerError as error:
            return error.answer

    async def ask_json(self, role, messages, schema: dict, *, least: dict | None = None, tries=MOST_ANSWERS, **asked) -> dict:
        """The JSON object that `schema` asks for; one that does not fit it, or `least`, is sent back with the error.
        Arguments as in `chat`. Raises AnswerError after `tries` answers."""
        question = self._question(role, messages, schema=schema, **asked)
        return await self._until_read(question, partial(extract_json, schema=least or schema), tries)

    async def ask_code(self, role: str, messages: Sequence[dict], *, tries: int = MOST_ANSWERS, **asked) -> str:
        """The Python module in the answer; otherwise as `ask_json`."""
        return await self._until_read(self._question(role, messages, **asked), extract_code, tries)

    def _question(self, role: str, messages: Sequence[dict] = (), *, model="", limit=0, **asked) -> Question:
        if not (spec := self.specs.get(role)):
            raise UserError(f"no model for the role {role!r}; there are {', '.join(self.specs)}")
        if model and spec.at_endpoint:
            spec = replace(spec, name=model, effort="")
        cleaned = tuple({"role": one["role"], "content": without_surrogates(one["content"])} for one in messages)
        limit = limit or MOST_OUTPUT.get(role, 0)
        return Question(role, spec.name, cleaned, effort=spec.effort, base_url=spec.base_url, limit=limit, **asked)

    async def _until_read(self, question: Question, read: Callable, tries: int):
        asked = question
        for number in range(1, tries + 1):
            call = await self._complete(asked)
            if call.fault in ("refusal", "content filter", "rejected"):  # no error message improves these
                raise AnswerError(f"{question.role} gave no answer: {call.fault}: {call.answer[:200]}", call.answer)
            try:
                return read(call.answer)
            except AnswerError as error:
                complaint = error
            sent_back = {"role": "assistant", "content": call.answer or "(empty)"}
            messages = (*question.messages, sent_back, {"role": "user", "content": f"{complaint}\n{AGAIN}"})
            asked = replace(question, messages=messages, sample=f"{question.sample} try {number + 1}")
        why = f"{tries} answers of {question.role} could not be used, the last because: {complaint}"
        raise AnswerError(why, call.answer)

    async def _complete(self, question: Question) -> Call:
        """The finished call, from the store where it was made before."""
        if not self._models[question.place].stored:
            self._count({**vars(question), **dict.fromkeys(TOTALS, 0), "calls": 1})
            reply = await self._models[question.place].ask(question)
            return Call("", question.role, question.model, answer=reply.text, fault=reply.fault)
        model = json.dumps([question.model, question.effort, question.base_url, question.limit])
        rest = json.dumps([question.schema, question.sample, question.seed])
        digest = _sha(f"[{model}, {question.written}, {rest[1:]}")  # of all that shapes the answer
        keys = []
        for attempt in range(1 + max(tries for rule, tries in RULES.values() if rule == "again")):
            keys.append(key := _sha(f"{digest} {attempt}"))
            if not (call := self.store.get_call(key)):
                flight = self._flights.get(key) or self._flights.start([key], partial(self._ask, [key], question))
                call = await flight.join()
            if not call.fault or attempt >= RULES[call.fault][1]:
                break
            if call.fault == "length" and call.answer and question.limit < MOST_OUTPUT[question.role]:
                break  # a small model writes on after its action: --agent-tokens cuts it there
        where = f"{question.model} at {question.place}"
        if call.fault == "context":  # of an answer that was begun, paid and stored
            raise ContextOverflow(f"{where}: {call.answer}")
        # After BARREN questions in a row without an answer nothing was the agent's fault: ask again when resumed.
        barren = self._barren.setdefault(call.model, [])
        barren.append(keys)
        if (call.answer and call.fault != "content filter") or call.fault in ("refusal", "rejected"):
            barren.clear()
        elif len(barren) >= BARREN:
            self.store.set_aside("key", [key for keys in barren for key in keys])
            why = HINTS.get(call.fault, "there is not a word in the answers")
            raise InfrastructureError(f"{where}: {BARREN} questions in a row without an answer: {why}")
        return call

    async def _ask(self, keys: list[str], question: Question, flight: Flight) -> Call | dict:
        """Make a call, counted against the budget, and store it. Returns the call; for texts to embed their vectors
        by key, a DesignError for a text that is refused."""
        model = self._models[question.place]
        known = Price(0.0, 0.0, 0.0) if model.free else price(question.model, self._prices, question.base_url)
        if known is None and self._in_dollars:  # only a design names a model that late
            raise UserError(f"--budget-usd cannot be kept: the price of {question.model} is unknown")
        # No fewer tokens than the prompt has: a token is at least a byte, a message has a frame.
        texts = [message["content"] for message in question.messages] + list(question.texts)
        most_prompt = sum(len(text.encode()) + 8 for text in texts) + len(json.dumps(question.schema or ""))
        key = _sha(json.dumps([question.model, question.base_url, *question.texts])) if question.texts else keys[0]
        most_usd = known and known.usd(most_prompt, 0, question.limit)
        reserved = self._budget.reserved(most_usd, most_prompt + question.limit)
        async with self._queues[question.place].turn(question.design), reserved:
            flight.sent = not model.free
            reply = await model.ask(question)
            usd = known and known.usd(reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens)
            call = Call(
                key, question.role, str(ModelSpec(question.model, question.effort, question.base_url)), question.design,
                question.stage, question.sample, _sha(question.written), answer=reply.text, fault=reply.fault,
                # An agent's requests are long, many, and follow from its episode.
                request=question.written if question.role in ("meta", "memory") else "",
                usd=usd, seconds=reply.seconds, created=time.time(), **{name: getattr(reply, name) for name in TOKENS})
            self._count({**vars(call), "calls": 1, "usd": usd or 0.0, "unpriced": usd is None})
        if not question.texts:
            self.store.put_call(call)
            return call
        found = dict(zip(keys, reply.vectors, strict=True))
        good = {key: vector for key, vector in found.items() if not isinstance(vector, DesignError)}
        return {**found, **self.store.put_vectors(call, good)}

    def _count(self, counted: Mapping) -> None:
        """Add finished calls to the usage, the totals and what is spent."""
        for row in (self._totals, self._usage.setdefault(tuple(counted[name] for name in BY), Counter())):
            row.update({name: counted[name] for name in TOTALS})
        self._budget.spend(counted["usd"], counted["prompt_tokens"] + counted["completion_tokens"])

    def totals(self) -> dict:
        """Calls, tokens, dollars and seconds of the run so far; `unpriced` calls are not in the dollars."""
        return {name: self._totals[name] for name in TOTALS}

    def usage(self) -> list[dict]:
        """The same by role, model, design and stage; `usd` is None where no call of the group has a known price."""
        rows = [{**dict(zip(BY, group, strict=True)), **row} for group, row in sorted(self._usage.items())]
        return [{**row, "usd": None if row["unpriced"] == row["calls"] else row["usd"]} for row in rows]

    @property
    def in_flight(self) -> int:
        """Calls that wait for an endpoint's answer."""
        return sum(flight.sent for flight in set(self._flights.values()))

    @property
    def waiting(self) -> int:
        """Calls that wait for a person's or another program's answer."""
        return sum(len(model.waiting) for model in self._models.values())

    async def embed(self, texts: Sequence[str], *, design: str = "", stage: str = "") -> list[list[float]]:
        """A vector for each text, paid for once in a run; a long one is cut. Raises DesignError for one that is refused."""
        cleaned = tuple(without_surrogates(text) or " " for text in texts)
        question = self._question("embedding", texts=cleaned, design=design, stage=stage)
        model = self._models[question.place]
        if not model.stored:
            self._count({**vars(question), **dict.fromkeys(TOTALS, 0), "calls": 1})
            return list((await model.ask(question)).vectors)
        keys = [_sha(json.dumps([question.model, question.base_url, text])) for text in texts]
        wanted = dict(zip(keys, cleaned, strict=True))
        known = self.store.get_vectors(list(wanted))
        # Ask for what no call under way brings, and join all calls.
        missing = sorted(wanted.keys() - known)
        new, most = [key for key in missing if key not in self._flights], model.most_texts(question.model)
        for part in (new[start : start + most] for start in range(0, len(new), most)):
            asked = replace(question, texts=tuple(wanted[key] for key in part))
            self._flights.start(part, partial(self._ask, part, asked))
        flights = {self._flights[key] for key in missing}
        for result in await asyncio.gather(*(flight.join() for flight in flights)):
            known.update(result)
        for key in keys:
            if isinstance(known[key], DesignError):
                raise known[key]
        return [known[key] for key in keys]


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
