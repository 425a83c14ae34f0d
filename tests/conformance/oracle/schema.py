"""The OpenAPI document of the oracle's model, as Cog's build writes it beside a model.

The server checks inputs by it, answers it, and streams only if it says `x-cog-streaming`. The
inputs are those that the proxy takes, so that both refuse the same ones; nothing else here is the
proxy's. Source: Cog's HTTP API, and what its build makes of such a runner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.core.predictions.openapi import openapi_document

Schema = dict[str, Any]

SCHEMAS = "#/components/schemas/"


def describe_model(required: Sequence[str] = ()) -> Schema:
    """Return the whole document.

    Args:
        required: The members of the input that have to be there.
    """
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": _paths(),
        "components": {"schemas": _schemas(required)},
    }


def _inputs() -> Schema:
    document: Schema = openapi_document("0")
    found: Schema = document["components"]["schemas"]["Input"]["properties"]
    return found


def _paths() -> Schema:
    create = {
        "summary": "Predict",
        "description": "Run a single prediction on the model",
        "operationId": "predict_predictions_post",
        "x-cog-streaming": True,
        "requestBody": {"content": _json("PredictionRequest")},
        "responses": {"200": _answer("PredictionResponse"), "422": _invalid()},
    }
    cancel = {
        "summary": "Cancel",
        "operationId": "cancel_predictions__prediction_id__cancel_post",
        "parameters": [
            {
                "name": "prediction_id",
                "in": "path",
                "required": True,
                "schema": {"title": "Prediction ID", "type": "string"},
            }
        ],
        "responses": {"200": _answer(), "422": _invalid()},
    }
    return {
        "/": {"get": _plain("Root", "root__get")},
        "/health-check": {"get": _plain("Healthcheck", "healthcheck_health_check_get")},
        "/predictions": {"post": create},
        "/predictions/{prediction_id}/cancel": {"post": cancel},
    }


def _plain(summary: str, operation: str) -> Schema:
    return {"summary": summary, "operationId": operation, "responses": {"200": _answer()}}


def _answer(name: str | None = None) -> Schema:
    return {"description": "Successful Response", "content": _json(name)}


def _invalid() -> Schema:
    return {"description": "Validation Error", "content": _json("HTTPValidationError")}


def _json(name: str | None) -> Schema:
    return {"application/json": {"schema": {"$ref": SCHEMAS + name} if name else {}}}


def _schemas(required: Sequence[str]) -> Schema:
    text = {"type": "string"}
    time = {"type": "string", "format": "date-time"}
    reference = {"$ref": SCHEMAS + "ValidationError"}
    place = {"type": "array", "items": {"anyOf": [text, {"type": "integer"}]}}
    states = ["starting", "processing", "succeeded", "canceled", "failed"]
    request: Schema = {"id": text, "input": {"$ref": SCHEMAS + "Input"}}
    response: Schema = {
        **request,
        "output": {"$ref": SCHEMAS + "Output"},
        **dict.fromkeys(("version", "status", "error", "logs"), text),
        **dict.fromkeys(("created_at", "started_at", "completed_at"), time),
        "metrics": {"type": "object"},
    }
    inputs = _object("Input", _inputs())
    return {
        "Input": {**inputs, "required": list(required)} if required else inputs,
        "Output": {"type": "array", "items": text, "x-cog-array-type": "iterator"},
        "PredictionRequest": _object("PredictionRequest", request),
        "PredictionResponse": _object("PredictionResponse", response),
        "Status": {"title": "Status", "enum": states, "type": "string"},
        "HTTPValidationError": _object(
            "HTTPValidationError", {"detail": {"type": "array", "items": reference}}
        ),
        "ValidationError": _object("ValidationError", {"loc": place, "msg": text, "type": text}),
    }


def _object(title: str, properties: Schema) -> Schema:
    return {"title": title, "type": "object", "properties": properties}
