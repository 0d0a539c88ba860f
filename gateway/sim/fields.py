"""Fields of a JSON body, checked the way a provider checks them: a fault is a 400 that names the field.

Every dialect's reader uses these; how the refusal is worded for its clients is the business of ``sim/errors.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.sim.errors import ApiError


def read_document(raw: bytes) -> dict[str, Any]:
    """Decode a request body.

    Raises:
        ApiError: 400, it is no JSON object.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise ApiError(400, f"The request body has to be a JSON object, but is {kind_of(body)}.")
    return body


def read_model(body: Mapping[str, Any]) -> str:
    """The model's name.

    Raises:
        ApiError: 400, there is none.
    """
    model = body.get("model")
    if model is None or model == "":
        raise missing("model")
    if not isinstance(model, str):
        raise wrong("model", "a string", model)
    return model


def boolean(body: Mapping[str, Any], name: str, default: bool) -> bool:
    """A switch of the body. Raises ``ApiError``."""
    value = optional(body, name, bool, "a boolean")
    return default if value is None else bool(value)


def whole(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """A whole number of the body, within bounds. Raises ``ApiError``."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise wrong(name, "an integer", value)
    if not low <= value <= high:
        code = "integer_below_min_value" if value < low else "integer_above_max_value"
        raise invalid(name, f"is {value}, but has to be from {low} to {high}", code=code)
    return value


def optional(body: Mapping[str, Any], name: str, kind: type, wanted: str) -> Any:
    """A value of the body that is None or of that kind. Raises ``ApiError``."""
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise wrong(name, wanted, value)
    return value


def missing(param: str) -> ApiError:
    """The refusal of a body without a field that it needs."""
    return ApiError(400, f"'{param}' is missing.", param=param, code="missing_required_parameter")


def wrong(param: str, wanted: str, value: object) -> ApiError:
    """The refusal of a value of another type."""
    return ApiError(400, f"'{param}' has to be {wanted}, but is {kind_of(value)}.", param=param, code="invalid_type")


def invalid(param: str, problem: str, *, code: str | None = None) -> ApiError:
    """The refusal of a value that will not do."""
    return ApiError(400, f"'{param}' {problem}.", param=param, code=code)


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
