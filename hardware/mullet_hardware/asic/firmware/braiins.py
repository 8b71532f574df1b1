"""Braiins OS (BOSer): rate, watts and limit over RPC in one request, state and writes over gRPC under a token.

Methods and messages are pyasic 0.79's, after Braiins' public API (bos.v1); connections, tokens and deadlines are ours.
A message's absence and its number 0 are told apart, which pyasic's dictionaries cannot: they drop what is 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import betterproto
from pyasic.web.braiins_os.boser import BOSerWebAPI, BOSMinerGRPCStub
from pyasic.web.braiins_os.proto.braiins.bos.v1 import (
    GetMinerDetailsRequest,
    GetMinerStatsRequest,
    GetTunerStateRequest,
    LoginRequest,
    LoginResponse,
    MinerBrand,
    MinerStatus,
    PauseMiningRequest,
    Power,
    ResumeMiningRequest,
    SaveAction,
    SetPowerTargetRequest,
)

from mullet.domain.command import Verb
from mullet.ports import (
    CredentialsRejected,
    DeviceError,
    DeviceGarbled,
    DeviceRefused,
    DeviceUnreachable,
    IdentityMismatch,
    NoPermission,
    UnsafeWrite,
)
from mullet_hardware.asic import grpc
from mullet_hardware.asic.allowed import Channel, allow
from mullet_hardware.asic.capability import BRAIINS
from mullet_hardware.asic.device import (
    MOST_TH_PER_S,
    MOST_WATTS,
    UNSETTLED_S,
    Access,
    Answer,
    Found,
    IdentityPin,
    Order,
    celsius_of,
    first_of,
    number,
    require_write_access,
    short,
    text_of,
)
from mullet_hardware.asic.firmware.health_rules import braiins_health
from mullet_hardware.asic.firmware.rules import state_by_switch
from mullet_hardware.asic.protocol import Health, Reading
from mullet_hardware.asic.transport import exchange, parse_object, rpc_is_whole

LOGIN = "/braiins.bos.v1.AuthenticationService/Login"
TOKEN_LIFE_S = 3600.0
TOKEN_MARGIN_S = 60.0
FAST = "summary+tunerstatus+temps"
SLOW = "devs+temps+fans+tunerstatus"
PREPARED_AHEAD_S = 600.0
"""A token that ends within this time is renewed before it does: an order must not meet its end."""


class GuardedWeb(BOSerWebAPI):  # type: ignore[misc]
    """pyasic's methods over our own calls: every one passes the allow-list before anything is sent."""

    def __init__(self, access: Access, now: Callable[[], float]) -> None:
        super().__init__(access.host)
        self.port = access.web_port
        self.username = access.username
        self.pwd = access.password
        self.token: str | None = None
        self._now = now
        self._token_ends_at = -math.inf

    async def send_command(
        self,
        command: str,
        ignore_errors: bool = False,
        allow_warning: bool = True,
        privileged: bool = False,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Return the answer as pyasic's own methods want it, with all that is 0 dropped."""
        return dict((await self.ask(command, parameters["message"])).to_pydict())

    async def ask(self, command: str, message: betterproto.Message) -> Any:
        """Return the answer to a method of pyasic's stub.

        Raises:
            UnsafeWrite: it is not on the allow-list.
            CredentialsRejected: the password is wrong.
            DeviceError: what else went wrong.
        """
        return await getattr(BOSMinerGRPCStub(_Guard(self)), command)(message)

    async def auth(self) -> str:
        """Return a token in force, logging in where there is none."""
        if self.token is None or self._now() >= self._token_ends_at:
            await self._get_auth()
        if self.token is None:
            raise DeviceGarbled(f"{self.ip} let us in without a token")
        return self.token

    def drop_ageing_token(self) -> None:
        """Drop a token that ends soon, so that the next call fetches a new one."""
        if self._now() >= self._token_ends_at - PREPARED_AHEAD_S:
            self.token = None

    async def _get_auth(self) -> None:
        asked_at = self._now()
        self.token = None
        request = LoginRequest(username=self.username, password=self.pwd)
        answer = await grpc.call(BRAIINS, self.ip, self.port, LOGIN, bytes(request), {})
        if answer.status in (grpc.INVALID_ARGUMENT, grpc.PERMISSION_DENIED, grpc.UNAUTHENTICATED):
            raise CredentialsRejected(f"{self.ip} does not accept the password of user {self.username!r}")
        login = self.parsed(answer, LOGIN, LoginResponse)
        # In the answer's headers since the first version, in the message since a later one.
        self.token = answer.metadata.get("authorization") or login.token or None
        self._token_ends_at = asked_at + (float(login.timeout_s) or TOKEN_LIFE_S) - TOKEN_MARGIN_S

    async def send(self, path: str, message: bytes, response: type[betterproto.Message]) -> Any:
        """Return the answer to one call under a token; a token that was forgotten is renewed once."""
        for last in (False, True):
            token = await self.auth()
            answer = await grpc.call(BRAIINS, self.ip, self.port, path, message, {"authorization": token})
            if answer.status != grpc.UNAUTHENTICATED:
                return self.parsed(answer, path, response)
            self.token = None
            if last:
                raise CredentialsRejected(f"{self.ip} does not accept its own token")
        raise AssertionError("unreachable")

    def parsed(self, answer: grpc.GrpcAnswer, path: str, response: type[betterproto.Message]) -> Any:
        """Return the message of an answer.

        Raises:
            DeviceError: the device refused the call, or the message cannot be read.
        """
        who = f"{self.ip} ({path.rpartition('/')[2]})"
        if answer.status != grpc.OK:
            told = f"{who}: status {answer.status}, {short(answer.text)}"
            if answer.status == grpc.PERMISSION_DENIED:
                raise NoPermission(told)
            if answer.status in (grpc.DEADLINE_EXCEEDED, grpc.UNAVAILABLE):
                raise DeviceUnreachable(told)
            raise DeviceRefused(told)
        try:
            return response().parse(answer.message)
        # betterproto raises whatever its decoding runs into.
        except Exception as error:  # noqa: BLE001
            raise DeviceGarbled(f"{who} answered a message that cannot be read ({type(error).__name__})") from None


class _Guard:
    """What pyasic's stub takes for a channel: opens nothing, and lets through what is on the list."""

    def __init__(self, web: GuardedWeb) -> None:
        self._web = web

    def request(self, path: str, cardinality: Any, request: Any, response: Any, **kwargs: Any) -> _Stream:
        allow(BRAIINS, Channel.GRPC, path)
        if cardinality.client_streaming or cardinality.server_streaming:
            raise UnsafeWrite(f"{path} is no call with one answer")
        return _Stream(self._web, path, response)


class _Stream:
    """One call as the stub sees it."""

    def __init__(self, web: GuardedWeb, path: str, response: Any) -> None:
        self._web = web
        self._path = path
        self._response = response
        self._message = b""

    async def __aenter__(self) -> _Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        return None

    async def send_message(self, message: betterproto.Message, *, end: bool) -> None:
        self._message = bytes(message)

    async def recv_message(self) -> Any:
        return await self._web.send(self._path, self._message, self._response)


class Braiins:
    """One miner with Braiins OS."""

    def __init__(self, access: Access, pinned: str | None, full_watts: float, now: Callable[[], float]) -> None:
        self.pin = IdentityPin(pinned, access.host, now)
        self._access = access
        self._now = now
        self._web = GuardedWeb(access, now)
        self._ordered_at = -math.inf

    async def identify(self) -> Found:
        """Return who answers, after a check that it runs BOSer.

        Raises:
            IdentityMismatch: it is another kind of device, or another one than is pinned.
            CredentialsRejected: the password is wrong.
        """
        host = self._access.host
        who = f"{host} (version)"
        try:
            version = first_of(await self._rpc("version"), "VERSION", who)
        except DeviceRefused as error:
            raise IdentityMismatch(f"{host} does not run Braiins OS: it does not know its version") from error
        if not text_of(version, "BOSer"):
            raise IdentityMismatch(f"{host} does not run Braiins OS with its gRPC interface")
        details = await self._details()
        brand = details.miner_identity.brand
        model = details.miner_identity.name or details.miner_identity.miner_model
        make = {MinerBrand.ANTMINER: "Bitmain", MinerBrand.WHATSMINER: "MicroBT"}.get(brand, "Braiins")
        return Found(BRAIINS, _identities(details), make, model, details.bos_version.current)

    async def read(self) -> Reading:
        """Return a fresh reading."""
        return await self._read(ask_status=True)

    async def poll(self) -> Reading:
        """Return a reading; one that plainly hashes and was left alone is asked over RPC only, in one request."""
        return await self._read(ask_status=self._now() - self._ordered_at < UNSETTLED_S)

    async def apply(self, order: Order) -> Answer:
        """Look who is there, then send one order.

        Raises:
            DeviceRefused: the device does not take it, as with watts outside of its range.
            CredentialsRejected: the password is wrong.
        """
        require_write_access(self._access)
        await self._details()
        self._ordered_at = self._now()
        if order.verb is Verb.SLEEP:
            paused = await self._web.ask("pause_mining", PauseMiningRequest())
            return Answer(True, "it was paused already" if paused.already_paused else "")
        if order.verb is Verb.WAKE:
            resumed = await self._web.ask("resume_mining", ResumeMiningRequest())
            return Answer(True, "it was mining already" if resumed.already_mining else "")
        watts = math.floor(order.watts)
        if watts < 1:
            raise DeviceRefused(f"{self._access.host} cannot be set to {order.watts:.0f} W")
        # Nothing here is volatile; a target that is saved is at least not raised by a reboot.
        action = SaveAction.SAVE_AND_FORCE_APPLY
        request = SetPowerTargetRequest(save_action=action, power_target=Power(watt=watts))
        target = _watts(await self._web.ask("set_power_target", request), "power_target")
        return Answer(target is not None and target <= watts, f"power target {short(target)} W")

    async def prepare(self) -> None:
        """Hold a token that the device still knows, so that an order need not log in: one call tells, and renews it."""
        if self._access.barred is not None:
            return
        self._web.drop_ageing_token()
        await self._details()

    async def health(self) -> Health:
        """Return boards, hottest chip, slowest fan and chains that fail, from one request that needs no login."""
        await self.pin.ensure(self._who)
        return braiins_health(await self._rpc(SLOW), self._access.host)

    async def _read(self, ask_status: bool) -> Reading:
        host = self._access.host
        told = await self._rpc(FAST)
        summary = _part(told, "summary", "SUMMARY", host)
        th_per_s = number(summary, "MHS 5s", 1e-6, MOST_TH_PER_S, f"{host} (summary)")
        try:
            tuner = _part(told, "tunerstatus", "TUNERSTATUS", host)
        except DeviceRefused:
            tuner = {}
        watts = number(tuner, "ApproximateMinerPowerConsumption", 1.0, MOST_WATTS, f"{host} (tunerstatus)")
        limit_watts = number(tuner, "PowerLimit", 1.0, MOST_WATTS, f"{host} (tunerstatus)")
        off = None
        if ask_status or not th_per_s:
            off = _off(await self._details())
        else:
            await self.pin.ensure(self._who)
        if watts is None:
            watts = _consumption(await self._web.ask("get_miner_stats", GetMinerStatsRequest()))
        if limit_watts is None:
            limit_watts = _target(await self._web.ask("get_tuner_state", GetTunerStateRequest()))
        return Reading(
            watts=watts,
            limit_watts=limit_watts,
            state=state_by_switch(off, th_per_s),
            th_per_s=th_per_s,
            celsius=_hottest(told, host),
            identity=self.pin.pinned,
        )

    async def _details(self) -> Any:
        """Return the device's details, after a check that it is the device that is pinned."""
        details = await self._web.ask("get_miner_details", GetMinerDetailsRequest())
        identities = _identities(details)
        if not identities or not details.bos_version.current:
            raise DeviceGarbled(f"{self._access.host} (GetMinerDetails) answered without MAC and version")
        self.pin.saw(identities)
        self.pin.check()
        return details

    async def _who(self) -> tuple[str, ...]:
        return _identities(await self._details())

    async def _rpc(self, command: str) -> dict[str, Any]:
        request = allow(BRAIINS, Channel.RPC, command, json.dumps({"command": command}).encode())
        raw = await exchange(self._access.host, self._access.rpc_port, request, rpc_is_whole)
        return parse_object(raw, f"{self._access.host} ({command})")


def _part(told: Mapping[str, Any], name: str, section: str, host: str) -> dict[str, Any]:
    """Return the first entry of one command's answer among several.

    Raises:
        DeviceRefused: the device answered this one with an error.
        DeviceGarbled: there is no such answer.
    """
    return first_of(first_of(told, name, host), section, f"{host} ({name})")


def _hottest(told: Mapping[str, Any], host: str) -> float | None:
    """Return the temperature of the hottest board, None where it is not told."""
    try:
        boards = first_of(told, "temps", host).get("TEMPS")
    except DeviceError:
        return None
    found = [celsius_of(board, "Board") for board in boards or () if isinstance(board, dict)]
    return max((celsius for celsius in found if celsius is not None), default=None)


def _identities(details: Any) -> tuple[str, ...]:
    return tuple(text.upper() for text in (details.mac_address, details.serial_number, details.uid) if text)


def _off(details: Any) -> bool | None:
    """Return whether it is paused; None where it is neither that nor at work, as while it boots."""
    if details.status == MinerStatus.PAUSED:
        return True
    return False if details.status in (MinerStatus.NORMAL, MinerStatus.RESTRICTED) else None


def _watts(message: Any, field: str) -> float | None:
    """Return the watts of a field: 0 where the message is there and empty, None where it is not there."""
    power = getattr(message, field)
    return float(power.watt) if betterproto.serialized_on_wire(power) else None


def _consumption(stats: Any) -> float | None:
    return _watts(stats.power_stats, "approximated_consumption")


def _target(tuner: Any) -> float | None:
    name, state = betterproto.which_one_of(tuner, "mode_state")
    return _watts(state, "current_target") if name == "power_target_mode_state" else None
