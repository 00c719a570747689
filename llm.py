"""The client of every model: who is asked, what is remembered, what it costs.

Promises: every finished call is in the store before its answer is used, and none is made twice; a
stand-in ("offline") and a real model are asked in the same way; the budget counts what is in flight;
no key is logged, stored, or seen in a traceback, a repr, a child process or a core dump. It does not
promise that a model answers the same twice: `sample` tells such calls apart.

    models = Models({"agent": ModelSpec.parse("qwen3:8b@http://localhost:11434/v1")}, Store("store.sqlite"))
    await models.chat("agent", [{"role": "user", "content": "Hello"}])

The parts: `keys.py` reads keys, `endpoints.py` sends a request until it is answered, `money.py` counts, `store.py` keeps,
`gateway.py` lets worker processes ask, `answers.py` reads answers.
"""

import asyncio
import functools
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace

import standins
from errors import UserError
from models import gateway
from models.answers import AnswerError, extract_code, extract_json, is_schema
from models.credentials import Keys, check_url, child_environment, is_local
from models.endpoint import BARREN, RULES, ContextOverflow, Endpoint, Fault, Patience, Question, Reply, clean
from models.gateway import GatewayClient
from models.prices import Budget, Price, price
from models.store import Call, Store

__all__ = [
    "AnswerError", "ContextOverflow", "GatewayClient", "Keys", "ModelSpec", "Models", "Patience", "child_environment",
    "is_local",
]  # fmt: skip

OFFLINE = "offline"  # the stand-in for any model
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
ROLES = ("meta", "agent", "memory", "embedding")
MOST_OUTPUT = {"meta": 32_000, "agent": 8_000, "memory": 8_000}  # tokens, reasoning included
KEPT_REQUESTS = ("meta", "memory")  # an agent's are long, many, and follow from its episode
TEXTS_IN_CALL = 128  # embedded at once
TRIES = 3  # answers that are read before it is given up, each sent back with the error
DRAIN_SECONDS = 5.0  # for the calls in flight when a run stops
SHORTEST_CUT = 100  # characters; a text that is shorter is not too long to embed
UNUSABLE = ("refusal", "content filter", "rejected")  # answers that no error message improves
AGAIN = "Your answer could not be used. Give the whole answer again, in the form that was asked for."


# ---------------------------------------------------------------------------- who is asked


@dataclass(frozen=True)
class ModelSpec:
    """A model as it is written on the command line: `name`, `name:effort`, either with `@base_url`."""

    name: str  # may hold ":" itself, as Ollama's do
    effort: str = ""  # one of EFFORTS, empty for the model's own
    base_url: str = ""  # empty for $OPENAI_BASE_URL, else OpenAI

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """Raises UserError where `text` is no model."""
        name, at, base_url = text.strip().partition("@http")
        base_url = (at[1:] + base_url).rstrip("/")
        rest, _, effort = name.rpartition(":")
        if effort not in EFFORTS:
            rest, effort = name, ""
        if not re.fullmatch(r"[^\s@]+", rest) or (rest == OFFLINE and (effort or base_url)):
            raise UserError(
                f"model {text!r} is not {OFFLINE}, name, name:effort or either with @http://host:port/v1"
            )
        return cls(rest, effort, check_url(base_url) if base_url else "")

    @property
    def offline(self) -> bool:
        return self.name == OFFLINE

    def __str__(self) -> str:
        effort = f":{self.effort}" if self.effort else ""
        return f"{self.name}{effort}" + (f"@{self.base_url}" if self.base_url else "")


# ------------------------------------------------------------------------------------ models


class Models:
    """Every model of a run, by role, behind one store and one budget.

    `specs` has a ModelSpec for each role that is used; `in_flight` limits the calls at each endpoint;
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
        self.specs, self.store, self._log = dict(specs), store, log
        self._prices = dict(prices or {})
        self._endpoints: dict[str, Endpoint] = {}
        keys, patience = Keys.read() if keys is None else keys, patience or Patience()
        for role, spec in self.specs.items():
            if spec.offline:
                continue
            url = spec.base_url or keys.base_url
            self.specs[role] = replace(spec, base_url=url)
            if url not in self._endpoints:
                key, notes = keys.of(url, log), (store.get_note, store.put_note)
                self._endpoints[url] = Endpoint(url, key, in_flight, patience, log, *notes)
        real = {role: spec.name for role, spec in self.specs.items() if not spec.offline}
        for name in sorted({name for role, name in real.items() if not self.price(role)}):
            unknown = f"the price of {name} is unknown: --price {name}=in,cached,out"
            if budget_usd is not None:
                raise UserError(f"--budget-usd cannot be kept: {unknown}")
            log(f"{unknown}; its calls are not in the dollars")
        self._budget = Budget(budget_usd, budget_tokens, log)
        self._flights: dict[str, Flight] = {}
        self._barren: dict[str, list[list[str]]] = {}  # by model, keys of questions in a row without a word
        self._offline: Counter[tuple[str, str, str]] = Counter()  # calls of stand-ins, by role, design, stage
        self._totals = Counter()
        for row in store.usage():  # of a run that goes on
            self._count(row)

    async def __aenter__(self) -> "Models":
        return self

    async def load(self) -> None:
        """Have the clients ready before the first call: their imports take a second."""
        for endpoint in self._endpoints.values():
            await asyncio.to_thread(endpoint.open)

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
        for endpoint in self._endpoints.values():
            await endpoint.aclose()

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
        sample: str = "",
        design: str = "",
        stage: str = "",
        seed: int = 0,
        model: str = "",
    ) -> str:
        """The model's answer to chat messages, without its thoughts; with a `schema`, as bare JSON.

        `model`: another one at the endpoint of the role.

        Where the model gives no usable answer (a refusal, nothing at all, no JSON when asked again),
        the last one is the answer. Raises InfrastructureError, BudgetError, ContextOverflow.
        """
        wanted = Wanted(role, tuple(messages), schema, sample, design, stage, seed, model)
        if not is_schema(schema):
            return (await self.complete(wanted)).answer
        try:
            return json.dumps(await self._until_read(wanted, lambda text: extract_json(text, schema), TRIES))
        except AnswerError as error:
            return error.answer

    async def ask_json(
        self, role: str, messages: Sequence[dict], schema: dict, *, tries: int = TRIES, **where
    ) -> dict:
        """The JSON object that fits `schema`; an answer that does not is sent back with the error.

        `where`: sample, design, stage, seed as in `chat`. Raises AnswerError after `tries` answers.
        """
        wanted = Wanted(role, tuple(messages), schema, **where)
        return await self._until_read(wanted, lambda text: extract_json(text, schema), tries)

    async def ask_code(self, role: str, messages: Sequence[dict], *, tries: int = TRIES, **where) -> str:
        """The Python module in the answer; otherwise as `ask_json`."""
        return await self._until_read(Wanted(role, tuple(messages), **where), extract_code, tries)

    async def _until_read(self, wanted: "Wanted", read: Callable, tries: int):
        asked = wanted
        for number in range(1, tries + 1):
            call = await self.complete(asked)
            if call.fault in UNUSABLE:
                raise AnswerError(
                    f"{wanted.role} gave no answer: {call.fault}: {call.answer[:200]}", call.answer
                )
            try:
                return read(call.answer)
            except AnswerError as error:
                complaint = error
            sent_back = {"role": "assistant", "content": call.answer or "(empty)"}
            again = {"role": "user", "content": f"{complaint}\n{AGAIN}"}
            messages = (*wanted.messages, sent_back, again)
            asked = replace(wanted, messages=messages, sample=f"{wanted.sample} try {number + 1}")
        message = f"{tries} answers of {wanted.role} could not be used, the last because: {complaint}"
        raise AnswerError(message, call.answer)

    async def complete(self, wanted: "Wanted") -> Call:
        """The finished call, from the store where it was made before."""
        spec = self._spec(wanted.role, wanted.model)
        if spec.offline:
            return self._ask_stand_in(wanted)
        question, digest, keys = wanted.question(spec), wanted.digest(spec), []
        for attempt in range(1 + max(tries for _, tries in RULES.values())):
            keys.append(_sha(f"{digest} {attempt}"))
            call = await self._finished(keys[-1], wanted, question)
            if not call.fault or attempt >= RULES[call.fault][1]:
                break
        if call.fault == "rejected" and wanted.stage != PROBE.stage:
            await self._probe(question, keys)
        self._stop_if_barren(question, call, keys)
        return call

    async def _probe(self, question: Question, keys: list[str]) -> None:
        """Raise InfrastructureError where the model refuses the simplest question too: then it was not
        the prompt, and that will be asked again when the run is resumed."""
        answer = await self.complete(replace(PROBE, role=question.role, design=question.design, sample=keys[-1]))
        if answer.fault == "rejected":
            self.store.set_aside([*keys, answer.key])
            fault = Fault("useless", "it answered before and now refuses every request")
            raise self._endpoints[self._spec(question.role).base_url].stop(question, fault)

    def _stop_if_barren(self, question: Question, call: Call, keys: list[str]) -> None:
        """Raise InfrastructureError after BARREN questions in a row without a word in the answers.

        Those questions are asked again when the run is resumed: nothing was the agent's fault.
        """
        barren = self._barren.setdefault(call.model, [])
        barren.append(keys)
        if call.answer or call.fault in UNUSABLE:
            barren.clear()
        elif len(barren) >= BARREN:
            self.store.set_aside([key for keys in barren for key in keys])
            fault = Fault("useless", f"{BARREN} questions in a row without a word in the answer")
            raise self._endpoints[self._spec(question.role).base_url].stop(question, fault)

    def _ask_stand_in(self, wanted: "Wanted") -> Call:
        self._offline[wanted.role, wanted.design, wanted.stage] += 1
        self._totals["calls"] += 1
        answer = standins.chat(wanted.role, list(wanted.messages), wanted.schema, wanted.seed)
        return Call("", wanted.role, OFFLINE, answer=answer)

    async def _finished(self, key: str, wanted: "Wanted", question: Question) -> Call:
        """The call of that key: stored, in flight, or made now."""
        stored = self.store.get_call(key)
        if stored is not None:
            return stored

        async def make(flight: Flight) -> Call:
            reply = await self._pay(question, flight)
            spec = self._spec(wanted.role, wanted.model)
            call = wanted.call(key, spec, reply, self._usd(spec.name, reply))
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

    async def _pay(self, question: Question, flight: "Flight") -> Reply:
        """Make one call, counted against the budget; its answer is still to be stored."""
        endpoint = self._endpoints[self._spec(question.role).base_url]
        known, prompt = price(question.model, self._prices), _most_tokens(question)
        if known is None and self._budget.in_dollars:  # only a design names a model that late
            raise UserError(f"--budget-usd cannot be kept: the price of {question.model} is unknown")
        most_usd = known.usd(prompt, 0, question.limit) if known else None
        async with endpoint.slots.slot(question.design):
            reserved = await self._budget.reserve(most_usd, prompt + question.limit)
            try:
                flight.sent = True
                reply = await endpoint.ask(question)
                self._count({**vars(reply), "calls": 1, "usd": self._usd(question.model, reply)})
            finally:
                self._budget.release(reserved)
        return reply

    def _usd(self, model: str, reply: Reply) -> float | None:
        known = price(model, self._prices)
        return known and known.usd(reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens)

    def price(self, role: str) -> Price | None:
        """What the model of a role costs; None where that is unknown."""
        return price(self._spec(role).name, self._prices)

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
        for (role, design, stage), calls in sorted(self._offline.items()):
            row = {"role": role, "model": OFFLINE, "design": design, "stage": stage, "calls": calls}
            rows.append({**dict.fromkeys((*TOTALS, "unpriced"), 0), **row})
        return rows

    @property
    def in_flight(self) -> int:
        """Calls that wait for an endpoint's answer."""
        return sum(flight.sent for flight in set(self._flights.values()))

    def faults(self) -> dict[str, int]:
        """Faults of all endpoints that were met and dealt with, by kind."""
        return dict(sum((endpoint.faults for endpoint in self._endpoints.values()), Counter()))

    # Embedding.

    async def embed(self, texts: Sequence[str], *, design: str = "", stage: str = "") -> list[list[float]]:
        """A vector for each text; no text is paid for twice in a run.

        A text that is longer than the model takes is cut.
        """
        spec = self._spec("embedding")
        if spec.offline:
            self._offline["embedding", design, stage] += 1
            self._totals["calls"] += 1
            return standins.embed(list(texts))
        keys = [_sha(json.dumps([spec.name, spec.base_url, text])) for text in texts]
        wanted = {key: clean(text) or " " for key, text in zip(keys, texts, strict=True)}
        known = self.store.get_vectors(list(wanted))
        known.update(
            await self._embed_unknown({key: wanted[key] for key in wanted.keys() - known}, design, stage)
        )
        return [known[key] for key in keys]

    async def _embed_unknown(self, texts: dict[str, str], design: str, stage: str) -> dict[str, list[float]]:
        """Vectors by key: joins the calls that ask for some already, and asks for the rest."""
        flights = {self._flights[key] for key in texts if key in self._flights}
        new = sorted(key for key in texts if key not in self._flights)
        for start in range(0, len(new), TEXTS_IN_CALL):
            part = {key: texts[key] for key in new[start : start + TEXTS_IN_CALL]}
            flights.add(
                self._take_off(list(part), lambda flight, part=part: self._embed(part, design, stage, flight))
            )
        results = await asyncio.gather(*(flight.join() for flight in flights))
        return {key: vector for result in results for key, vector in result.items()}

    async def _embed(self, texts: dict[str, str], design: str, stage: str, flight: "Flight") -> dict:
        """One call for several texts; a text that is too long is halved until it fits."""
        spec = self._spec("embedding")
        while True:
            cut = tuple(texts.values())
            question = Question("embedding", spec.name, texts=cut, design=design)
            try:
                reply = await self._pay(question, flight)
                break
            except ContextOverflow:
                longest = max(map(len, cut))
                if longest < SHORTEST_CUT:
                    raise
                self._log(
                    f"{spec.name}: texts over {longest // 2} characters are cut, they are too long to embed"
                )
                texts = {key: text[: longest // 2] for key, text in texts.items()}
        wanted = Wanted("embedding", (), design=design, stage=stage)
        key = _sha(json.dumps([spec.name, spec.base_url, cut]))
        call = wanted.call(key, spec, reply, self._usd(spec.name, reply))
        return self.store.put_vectors(call, dict(zip(texts, reply.vectors, strict=True)))

    def _spec(self, role: str, model: str = "") -> ModelSpec:
        if role not in self.specs:
            raise UserError(f"no model for the role {role!r}; there are {', '.join(self.specs)}")
        spec = self.specs[role]
        return replace(spec, name=model, effort="") if model and not spec.offline else spec


TOTALS = (
    "calls", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "usd", "seconds",
)  # fmt: skip


# --------------------------------------------------------------------------------- one call


@dataclass(frozen=True)
class Wanted:
    """A chat answer that somebody wants."""

    role: str
    messages: tuple[dict, ...]
    schema: dict | None = None  # of the JSON answer that is wanted
    sample: str = ""  # tells apart calls with the same messages: a pass, the n-th time
    design: str = ""  # who wants it, for the account and for fairness
    stage: str = ""  # of the loop, for the account
    seed: int = 0  # of the stand-in
    model: str = ""  # in place of the role's

    def question(self, spec: ModelSpec) -> Question:
        messages = tuple({"role": one["role"], "content": clean(one["content"])} for one in self.messages)
        limit = MOST_OUTPUT[self.role]
        return Question(self.role, spec.name, messages, (), spec.effort, self.schema, limit, self.design)

    @functools.cached_property
    def _written(self) -> str:
        """The messages as JSON, which takes time where a dialogue is long."""
        return json.dumps(self.messages)

    def digest(self, spec: ModelSpec) -> str:
        """Hash of everything that shapes the answer."""
        model = json.dumps([spec.name, spec.effort, spec.base_url, MOST_OUTPUT[self.role]])
        return _sha(f"[{model}, {self._written}, {json.dumps([self.schema, self.sample, self.seed])[1:]}")

    def call(self, key: str, spec: ModelSpec, reply: Reply, usd: float | None) -> Call:
        """The record of the call that was made for it."""
        return Call(
            key, self.role, str(spec), self.design, self.stage, self.sample,
            prompt_hash=_sha(self._written),
            request=self._written if self.role in KEPT_REQUESTS else "",
            answer=reply.text, fault=reply.fault,
            prompt_tokens=reply.prompt_tokens, cached_tokens=reply.cached_tokens,
            completion_tokens=reply.completion_tokens, reasoning_tokens=reply.reasoning_tokens,
            usd=usd, seconds=reply.seconds, created=time.time(),
        )  # fmt: skip


PROBE = Wanted("", ({"role": "user", "content": "Answer with the word OK."},), stage="probe")


class Flight:
    """A call that is being made, and how many wait for it."""

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


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
