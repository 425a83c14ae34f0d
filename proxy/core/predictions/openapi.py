"""`/openapi.json`: what the model takes and gives, in the form that Cog's tools look for.

Owns the document. It is made of the table of the input's members, so that what it says and what is
checked are the same. `x-cog-streaming` tells a client that it may ask for an event stream.

Source: Cog 0.23.1, the schema of a model that streams.
"""

from __future__ import annotations

from proxy.core.predictions.inputs import MEMBERS, Member
from proxy.core.predictions.webhooks import WebhookEvent

Schema = dict[str, object]

_TEXT: Schema = {"type": "string"}
_STATES = ["starting", "processing", "succeeded", "canceled", "failed"]


def openapi_document(version: str) -> Schema:
    """Return the OpenAPI document of the predictions' routes.

    Args:
        version: The proxy's.
    """
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": version},
        "paths": _paths(),
        "components": {"schemas": _schemas()},
    }


def _paths() -> Schema:
    create: Schema = {
        "requestBody": _json("PredictionRequest"),
        "responses": {"200": _answer("PredictionResponse"), "422": _invalid()},
    }
    health = {"summary": "Healthcheck", "operationId": "healthcheck_health_check_get"}
    return {
        "/health-check": {"get": {**health, "responses": {"200": _answer()}}},
        "/predictions": {
            "post": {
                **create,
                "summary": "Predict",
                "description": "Run a single prediction on the model",
                "operationId": "predict_predictions_post",
                "x-cog-streaming": True,
            }
        },
        "/predictions/{prediction_id}": {
            "get": _snapshot(),
            "put": {
                **create,
                "summary": "Predict Idempotent",
                "description": "Run a prediction, or join the one that has this ID",
                "operationId": "predict_idempotent_predictions__prediction_id__put",
                "parameters": [_id_in_path()],
                "x-cog-streaming": True,
            },
        },
        "/predictions/{prediction_id}/cancel": {"post": _cancel()},
    }


def _snapshot() -> Schema:
    return {
        "summary": "Snapshot",
        "operationId": "snapshot_predictions__prediction_id__get",
        "parameters": [_id_in_path()],
        "responses": {
            "200": _answer("PredictionResponse"),
            "404": {"description": "Unknown prediction"},
        },
    }


def _cancel() -> Schema:
    return {
        "summary": "Cancel",
        "operationId": "cancel_predictions__prediction_id__cancel_post",
        "parameters": [_id_in_path()],
        "responses": {"200": _answer(), "404": {"description": "No such prediction is running"}},
    }


def _id_in_path() -> Schema:
    return {
        "name": "prediction_id",
        "in": "path",
        "required": True,
        "schema": {"title": "Prediction ID", "type": "string"},
    }


def _answer(name: str | None = None) -> Schema:
    return {"description": "Successful Response", **_json(name)}


def _invalid() -> Schema:
    return {"description": "Validation Error", **_json("HTTPValidationError")}


def _json(name: str | None) -> Schema:
    return {"content": {"application/json": {"schema": _reference(name) if name else {}}}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> Schema:
    time: Schema = {"type": "string", "format": "date-time"}
    place = {"type": "array", "items": {"anyOf": [_TEXT, {"type": "integer"}]}}
    common: Schema = {"id": _TEXT, "input": _reference("Input")}
    events = {
        "type": "array",
        "items": {"type": "string", "enum": [event.value for event in WebhookEvent]},
    }
    response: Schema = {
        **common,
        "output": _reference("Output"),
        **dict.fromkeys(("status", "error", "logs"), _TEXT),
        **dict.fromkeys(("created_at", "started_at", "completed_at"), time),
        "metrics": {"type": "object"},
    }
    request: Schema = {**common, "webhook": _TEXT, "webhook_events_filter": events}
    detail = {"type": "array", "items": _reference("ValidationError")}
    problem: Schema = {"loc": place, "msg": _TEXT, "type": _TEXT}
    return {
        "Input": _object("Input", {m.name: _member(n, m) for n, m in enumerate(MEMBERS)}),
        "Output": {"title": "Output", "type": "array", "items": _TEXT, **_ITERATOR},
        "PredictionRequest": _object("PredictionRequest", request),
        "PredictionResponse": _object("PredictionResponse", response),
        "Status": {"title": "Status", "type": "string", "enum": _STATES},
        "HTTPValidationError": _object("HTTPValidationError", {"detail": detail}),
        "ValidationError": {
            **_object("ValidationError", problem),
            "required": ["loc", "msg", "type"],
        },
    }


# The chunks are parts of one text: what shows them joins them, with nothing between.
_ITERATOR: Schema = {"x-cog-array-type": "iterator", "x-cog-array-display": "concatenate"}


def _object(title: str, properties: Schema) -> Schema:
    return {"title": title, "type": "object", "properties": properties}


def _member(order: int, member: Member) -> Schema:
    forms = [_form(name, member) for name in member.types]
    bounds = {"minimum": member.minimum, "maximum": member.maximum}
    return {
        "title": member.name.replace("_", " ").title(),
        "description": member.description,
        "x-order": order,
        **(forms[0] if len(forms) == 1 else {"anyOf": forms}),
        **{name: bound for name, bound in bounds.items() if bound is not None},
    }


def _form(name: str, member: Member) -> Schema:
    return {"type": name, "items": {"type": member.items}} if name == "array" else {"type": name}
