"""Every model by role: asked, counted, stored.

Promises: every finished call is in the store before its answer is used, and none is made twice; whatever
answers (an endpoint, a stand-in) is asked in the same way, as a `Model`; the budget counts calls in flight;
no key is logged, stored, or seen in a traceback, a repr, a child process or a core dump. A model need not
answer the same twice: `sample` tells such calls apart.

    models = Models({"agent": ModelSpec.parse("qwen3:8b@ollama")}, Store("store.sqlite"))
    await models.chat("agent", [{"role": "user", "content": "Hello"}])

In `models/`: `endpoint.py` sends a request until it is answered, `manual.py` waits until somebody has written the
answer, `credentials.py` knows providers and keys, `prices.py` counts, `store.py` keeps, `gateway.py` lets worker
processes ask, `answers.py` reads answers.
"""

import asyncio
import functools
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import standins
from errors import ContextOverflow, DesignError, InfrastructureError, UserError
from models import MANUAL, MOST_OUTPUT, OFFLINE, ROLES, gateway
from models.answers import AnswerError, extract_code, extract_json, is_schema
from models.credentials import PROVIDERS, Keys, check_url, child_environment, is_local
from models.endpoint import HINTS, RULES, Endpoint, Patience, Question, Reply, without_surrogates
from models.fair_queue import FairQueue
from models.gateway import GatewayClient
from models.manual import Manual
from models.prices import Budget, Price, price
from models.store import Call, Store

__all__ = [
    "AnswerError", "ContextOverflow", "GatewayClient", "Keys", "Model", "ModelSpec", "Models", "Patience",
    "child_environment", "is_local",
]  # fmt: skip

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
KEPT_REQUESTS = ("meta", "memory")  # an agent's are long, many, and follow from its episode
MOST_ANSWERS = 3  # that are read before it is given up, each sent back with the error
DRAIN_SECONDS = 5.0  # for the calls in flight when a run stops
UNUSABLE = ("refusal", "content filter", "rejected")  # answers that no error message improves
BARREN = 10  # questions in a row without an answer: then the endpoint is at fault, not an answer
AGAIN = "Your answer could not be used. Give the whole answer again, in the form that was asked for."


# ------------------------------------------------------------------------------- what answers


class Model(Protocol):
    """What answers chat messages and embeds texts: an endpoint (`Endpoint`), a stand-in, files, ...

    A new kind is one class and one line in NAMED. `Models` asks, counts, budgets and stores.
    """

    stored: bool = True  # finished calls are kept, so that nothing is asked twice
    free: bool = True  # calls cost nothing, so that no price is needed, and one under way may be given up
    roles: Collection[str] = ROLES  # that it can be asked for
    waiting: Collection = ()  # requests that a person or another program is to answer

    async def ask(self, question: Question) -> Reply:
        """The answer to messages, or vectors of texts; raises InfrastructureError and ContextOverflow."""
        ...

    def open(self) -> None:
        """Prepare what takes time before the first call; raises UserError."""

    async def aclose(self) -> None:
        """Give back what `open` took."""

    def most_texts(self, model: str) -> int:
        """Most texts in an embedding call."""
        return 128


class StandIn(Model):
    """What plays without a key. The same question has the same answer, so nothing is stored."""

    stored = False

    def __init__(self, folder: Path, log: Callable[[str], None]):
        """It needs neither."""

    async def ask(self, question: Question) -> Reply:
        if question.texts:
            return Reply("", vectors=tuple(standins.embed(list(question.texts))))
        return Reply(standins.chat(question.role, list(question.messages), question.schema, question.seed))


# Names of models that no endpoint has, with their class, which is made from the run's folder and its log.
NAMED: dict[str, type[Model]] = {OFFLINE: StandIn, MANUAL: Manual}


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
        is_url = place.startswith(("http://", "https://"))
        if at and not is_url and place not in PROVIDERS:
            known = ", ".join(PROVIDERS)
            raise UserError(f"model {text!r}: after @ comes http://host:port/v1 or one of {known}")
        if not re.fullmatch(r"\S+", rest) or (rest in NAMED and (effort or at)):
            kinds = f"{', '.join(NAMED)}, name, name:effort, or one of the last two with @provider or @url"
            raise UserError(f"model {text!r} is none of {kinds}")
        if role and rest in NAMED and role not in NAMED[rest].roles:
            raise UserError(f"--{role}-model cannot be {rest}: it plays {', '.join(NAMED[rest].roles)}")
        return cls(rest, effort, check_url(place) if is_url else PROVIDERS[place][0] if at else "")

    @property
    def at_endpoint(self) -> bool:
        """Whether an endpoint has it, so that it may cost money."""
        return self.name not in NAMED

    @property
    def place(self) -> str:
        """The address that has it, or its name where none has."""
        return self.base_url or self.name

    def __str__(self) -> str:
        effort = f":{self.effort}" if self.effort else ""
        return f"{self.name}{effort}" + (f"@{self.base_url}" if self.base_url else "")


# ------------------------------------------------------------------------------------ models


class Models:
    """Every model of a run, by role, behind one store and one budget.

    `specs` has a ModelSpec for each role that is used; `in_flight` limits the calls of each endpoint;
    `prices` (dollars for a million tokens, by name of model) come before the list prices. Raises
    UserError for a missing key, and for a budget in dollars that a model without a price cannot keep.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        store: Store,
        *,
        in_flight: int = 10,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        prices: Mapping[str, Price] | None = None,
        log: Callable[[str], None] = print,
        keys: Keys | None = None,
        patience: Patience | None = None,
    ):
        keys, patience = Keys.read() if keys is None else keys, patience or Patience()
        self.specs, self.store, self._log = {}, store, log
        self._prices = dict(prices or {})
        self._models: dict[str, Model] = {}  # by address, or by name where no endpoint has it
        self._queues: dict[str, FairQueue] = {}  # of calls, the same way
        for role, spec in specs.items():
            if spec.at_endpoint:
                spec = replace(spec, base_url=spec.base_url or keys.base_url)
            self.specs[role], place = spec, spec.place
            if place in self._models:
                continue
            self._queues[place] = FairQueue(in_flight)
            if spec.at_endpoint:
                key, foreign = keys.of(place), place != keys.base_url
                self._models[place] = Endpoint(place, key, patience, log, store, foreign)
            else:
                self._models[place] = NAMED[spec.name](store.path.parent, log)
        for name in sorted({spec.name for spec in self.specs.values() if not self._price(spec)}):
            unknown = f"the price of {name} is unknown: --price {name}=in,cached,out"
            if budget_usd is not None:
                raise UserError(f"--budget-usd cannot be kept: {unknown}")
            log(f"{unknown}; its calls are not in the dollars")
        self._budget = Budget(budget_usd, budget_tokens, log)
        self._flights: dict[str, Flight] = {}
        self._barren: dict[str, list[list[str]]] = {}  # by model, keys of unanswered questions in a row
        self._unstored: Counter[tuple[str, str, str, str]] = Counter()  # calls by role, model, design, stage
        self._totals = Counter()
        for row in store.usage():  # of a run that goes on
            self._count(row)

    async def __aenter__(self) -> "Models":
        return self

    async def load(self) -> None:
        """Have the clients ready before the first call: their imports take a second."""
        for model in self._models.values():
            await asyncio.to_thread(model.open)

    async def __aexit__(self, *exception) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; calls that were sent have DRAIN_SECONDS to end, for they are paid."""
        flights = set(self._flights.values())
        for flight in flights:
            if not flight.sent:
                flight.task.cancel()
        if tasks := [flight.task for flight in flights]:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for model in self._models.values():
            await model.aclose()

    def gateway(self, host: str = "127.0.0.1", advertise: str | None = None):
        """Serve these models to `GatewayClient`s in worker processes; yields the address to give them."""
        return gateway.serve(self, host, advertise)

    # Asking.

    async def chat(
        self,
        role: str,
        messages: Sequence[dict],
        *,
        schema: dict | None = None,
        model: str = "",
        limit: int = 0,
        **where,
    ) -> str:
        """The model's answer to chat messages, without its thoughts; with a `schema`, as bare JSON.

        `model`: another one at the endpoint of the role. `limit`: most tokens of the answer (0: MOST_OUTPUT).
        `where`: sample, design, stage, seed of `Question`. An agent's answer is taken as it is, JSON or not.
        Where the model gives no usable answer (a refusal, nothing at all, no JSON when asked again),
        the last one is the answer. Raises InfrastructureError, BudgetError, ContextOverflow.
        """
        question, spec = self._question(role, messages, schema, model, limit, **where)
        if role == "agent" or not is_schema(schema):
            return (await self._complete(question, spec)).answer
        try:
            read = functools.partial(extract_json, schema=schema)
            return json.dumps(await self._until_read(question, spec, read, MOST_ANSWERS))
        except AnswerError as error:
            return error.answer

    async def ask_json(
        self, role: str, messages: Sequence[dict], schema: dict, *, least: dict | None = None,
        tries: int = MOST_ANSWERS, **where,
    ) -> dict:  # fmt: skip
        """The JSON object that `schema` asks for; one that does not fit it, or `least`, is sent back with the error.

        `where` as in `chat`. Raises AnswerError after `tries` answers.
        """
        question, spec = self._question(role, messages, schema, **where)
        return await self._until_read(question, spec, functools.partial(extract_json, schema=least or schema), tries)

    async def ask_code(
        self, role: str, messages: Sequence[dict], *, tries: int = MOST_ANSWERS, **where
    ) -> str:
        """The Python module in the answer; otherwise as `ask_json`."""
        return await self._until_read(*self._question(role, messages, **where), extract_code, tries)

    def _question(
        self,
        role: str,
        messages: Sequence[dict],
        schema: dict | None = None,
        model: str = "",
        limit: int = 0,
        **where,
    ) -> tuple[Question, ModelSpec]:
        spec = self._spec(role, model)
        cleaned = tuple({"role": one["role"], "content": without_surrogates(one["content"])} for one in messages)
        limit = limit or MOST_OUTPUT[role]
        return Question(role, spec.name, cleaned, (), spec.effort, schema, limit, **where), spec

    def _spec(self, role: str, model: str = "") -> ModelSpec:
        if role not in self.specs:
            raise UserError(f"no model for the role {role!r}; there are {', '.join(self.specs)}")
        spec = self.specs[role]
        return replace(spec, name=model, effort="") if model and spec.at_endpoint else spec

    async def _until_read(self, question: Question, spec: ModelSpec, read: Callable, tries: int):
        asked = question
        for number in range(1, tries + 1):
            call = await self._complete(asked, spec)
            if call.fault in UNUSABLE:
                message = f"{question.role} gave no answer: {call.fault}: {call.answer[:200]}"
                raise AnswerError(message, call.answer)
            try:
                return read(call.answer)
            except AnswerError as error:
                complaint = error
            sent_back = {"role": "assistant", "content": call.answer or "(empty)"}
            again = {"role": "user", "content": f"{complaint}\n{AGAIN}"}
            messages = (*question.messages, sent_back, again)
            asked = replace(question, messages=messages, sample=f"{question.sample} try {number + 1}")
        message = f"{tries} answers of {question.role} could not be used, the last because: {complaint}"
        raise AnswerError(message, call.answer)

    async def _complete(self, question: Question, spec: ModelSpec) -> Call:
        """The finished call, from the store where it was made before."""
        model = self._models[spec.place]
        if not model.stored:
            self._count_unstored(question)
            return Call("", question.role, str(spec), answer=(await model.ask(question)).text)
        digest, keys = _digest(question, spec), []
        for attempt in range(1 + max(tries for rule, tries in RULES.values() if rule == "again")):
            keys.append(_sha(f"{digest} {attempt}"))
            call = await self._finished(keys[-1], question, spec)
            if not call.fault or attempt >= RULES[call.fault][1]:
                break
            if call.fault == "length" and call.answer and question.limit < MOST_OUTPUT[question.role]:
                break  # a small model writes on after its action: --agent-tokens cuts it there
        # After BARREN questions in a row without an answer nothing was the agent's fault: ask again when resumed.
        barren = self._barren.setdefault(call.model, [])
        barren.append(keys)
        if (call.answer and call.fault != "content filter") or call.fault in ("refusal", "rejected"):
            barren.clear()
        elif len(barren) >= BARREN:
            self.store.set_aside([key for keys in barren for key in keys])
            why = HINTS.get(call.fault, "there is not a word in the answers")
            why = f"{BARREN} questions in a row without an answer: {why}"
            raise InfrastructureError(f"{spec.name} at {spec.place}: {why}")
        return call

    def _count_unstored(self, question: Question) -> None:
        self._unstored[question.role, question.model, question.design, question.stage] += 1
        self._totals["calls"] += 1

    async def _finished(self, key: str, question: Question, spec: ModelSpec) -> Call:
        """The call of that key: stored, in flight, or made now."""
        stored = self.store.get_call(key)
        if stored is not None:
            return stored

        async def make(flight: Flight) -> Call:
            reply = await self._pay(question, spec, flight)
            call = self._call(key, question, spec, reply)
            self.store.put_call(call)
            return call

        return await (self._flights.get(key) or self._take_off([key], make)).join()

    def _take_off(self, keys: list[str], make: Callable[["Flight"], Coroutine]) -> "Flight":
        """Start what `make` does; until it ends, whoever wants one of `keys` joins it."""
        flight = Flight()
        flight.task = asyncio.create_task(make(flight))
        self._flights.update(dict.fromkeys(keys, flight))

        def landed(task: asyncio.Task) -> None:
            for key in keys:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            if not task.cancelled():
                task.exception()  # those who joined raise it; a call that nobody waits for may fail

        flight.task.add_done_callback(landed)
        return flight

    # Paying.

    async def _pay(self, question: Question, spec: ModelSpec, flight: "Flight") -> Reply:
        """Make one call, counted against the budget; its answer is still to be stored."""
        known, prompt = self._price(spec), _most_tokens(question)
        if known is None and self._budget.in_dollars:  # only a design names a model that late
            raise UserError(f"--budget-usd cannot be kept: the price of {question.model} is unknown")
        most_usd = known.usd(prompt, 0, question.limit) if known else None
        async with self._queues[spec.place].turn(question.design):
            reserved = await self._budget.reserve(most_usd, prompt + question.limit)
            try:
                model = self._models[spec.place]
                flight.sent = not model.free
                reply = await model.ask(question)
                self._count({**vars(reply), "calls": 1, "usd": self._usd(spec, reply)})
            finally:
                self._budget.release(reserved)
        return reply

    def _price(self, spec: ModelSpec) -> Price | None:
        """What a model costs; None where that is unknown."""
        if self._models[spec.place].free:
            return Price(0.0, 0.0, 0.0)
        return price(spec.name, self._prices, spec.base_url)

    def _usd(self, spec: ModelSpec, reply: Reply) -> float | None:
        known = self._price(spec)
        return known and known.usd(reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens)

    def _call(self, key: str, question: Question, spec: ModelSpec, reply: Reply) -> Call:
        """The record of a finished call."""
        written = question.written
        return Call(
            key, question.role, str(spec), question.design, question.stage, question.sample,
            prompt_hash=_sha(written), request=written if question.role in KEPT_REQUESTS else "",
            answer=reply.text, fault=reply.fault,
            prompt_tokens=reply.prompt_tokens, cached_tokens=reply.cached_tokens,
            completion_tokens=reply.completion_tokens, reasoning_tokens=reply.reasoning_tokens,
            usd=self._usd(spec, reply), seconds=reply.seconds, created=time.time(),
        )  # fmt: skip

    def _count(self, usage: Mapping) -> None:
        """Add finished calls to the totals and to what is spent."""
        for name in TOTALS:
            self._totals[name] += usage[name] or 0
        self._totals["unpriced"] += usage.get("unpriced", usage["usd"] is None)
        self._budget.spend(usage["usd"], usage["prompt_tokens"] + usage["completion_tokens"])

    def totals(self) -> dict:
        """Calls, tokens, dollars and seconds of the run so far; `unpriced` calls are not in the dollars."""
        return {name: self._totals[name] for name in (*TOTALS, "unpriced")}

    def usage(self) -> list[dict]:
        """The same by role, model, design and stage; `usd` is None where the price is unknown."""
        rows = self.store.usage()
        for (role, model, design, stage), calls in sorted(self._unstored.items()):
            row = {"role": role, "model": model, "design": design, "stage": stage, "calls": calls}
            rows.append({**dict.fromkeys((*TOTALS, "unpriced"), 0), **row})
        return rows

    @property
    def in_flight(self) -> int:
        """Calls that wait for an endpoint's answer."""
        return sum(flight.sent for flight in set(self._flights.values()))

    @property
    def waiting(self) -> int:
        """Calls that wait for a person's or another program's answer."""
        return sum(len(model.waiting) for model in self._models.values())

    # Embedding.

    async def embed(self, texts: Sequence[str], *, design: str = "", stage: str = "") -> list[list[float]]:
        """A vector for each text; no text is paid for twice in a run.

        A text that is longer than the model takes is cut. Raises DesignError for a text that is refused.
        """
        spec = self._spec("embedding")
        cleaned = tuple(without_surrogates(text) or " " for text in texts)
        question = Question("embedding", spec.name, texts=cleaned, design=design, stage=stage)
        model = self._models[spec.place]
        if not model.stored:
            self._count_unstored(question)
            return list((await model.ask(question)).vectors)
        keys = [_sha(json.dumps([spec.name, spec.base_url, text])) for text in texts]
        wanted = dict(zip(keys, cleaned, strict=True))
        known = self.store.get_vectors(list(wanted))
        # Join the calls that ask for some already, and ask for the rest.
        missing = sorted(wanted.keys() - known)
        flights = {self._flights[key] for key in missing if key in self._flights}
        new = [key for key in missing if key not in self._flights]
        most = model.most_texts(spec.name)
        for part in (new[start : start + most] for start in range(0, len(new), most)):
            texts = {key: wanted[key] for key in part}
            flights.add(self._take_off(part, functools.partial(self._embed, texts, question, spec)))
        for result in await asyncio.gather(*(flight.join() for flight in flights)):
            known.update(result)
        for key in keys:
            if isinstance(known[key], DesignError):
                raise known[key]
        return [known[key] for key in keys]

    async def _embed(
        self, texts: dict[str, str], question: Question, spec: ModelSpec, flight: "Flight"
    ) -> dict[str, list[float] | DesignError]:
        """Vectors by key, or a DesignError for a text that is refused, by one call that is stored."""
        reply = await self._pay(replace(question, texts=tuple(texts.values())), spec, flight)
        call = self._call(_sha(json.dumps([spec.name, spec.base_url, *texts.values()])), question, spec, reply)
        found = dict(zip(texts, reply.vectors, strict=True))
        good = {key: vector for key, vector in found.items() if not isinstance(vector, DesignError)}
        return {**found, **self.store.put_vectors(call, good)}


TOTALS = (
    "calls", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "usd", "seconds",
)  # fmt: skip


class Flight:
    """A call that is being made, whether it was sent and will be paid, and how many wait for it."""

    task: asyncio.Task

    def __init__(self):
        self.sent, self.waiting = False, 0

    async def join(self):
        """The call's result. Once nobody waits any more a call that was not sent is given up; one
        that was sent is paid for, so its answer is kept."""
        self.waiting += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.waiting == 1 and not self.sent:
                self.task.cancel()
            raise
        finally:
            self.waiting -= 1


def _most_tokens(question: Question) -> int:
    """No fewer tokens than a prompt has: a token is at least a byte, a message has a frame."""
    texts = [message["content"] for message in question.messages] + list(question.texts)
    return sum(len(text.encode()) + 8 for text in texts) + len(json.dumps(question.schema or ""))


def _digest(question: Question, spec: ModelSpec) -> str:
    """Hash of everything that shapes the answer."""
    model = json.dumps([spec.name, spec.effort, spec.base_url, question.limit])
    rest = json.dumps([question.schema, question.sample, question.seed])
    return _sha(f"[{model}, {question.written}, {rest[1:]}")


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
