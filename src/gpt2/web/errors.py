"""Errors of the endpoint, in OpenAI's form."""

from __future__ import annotations

from typing import Any

from gpt2.errors import escaped

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """An answer other than 200, with a sentence for whoever sent the request."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ):
        """Describe the error.

        Args:
            status: HTTP status.
            message: what is wrong and what to do.
            param: the field of the body that is wrong.
            code: a short name for programs.
        """
        super().__init__(message)
        self.status = status
        self.message = escaped(message)
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        """The error object.

        Source: https://platform.openai.com/docs/guides/error-codes/api-errors
        """
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, default),
                "param": self.param,
                "code": self.code,
            }
        }
