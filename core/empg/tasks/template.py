"""The text around a problem: a Jinja2 template, sandboxed, in which an unknown variable is an error."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment


class PromptTemplate:
    """A compiled `task.template`. ValueError when it is not valid Jinja2."""

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
        )
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"task.template, line {error.lineno}: {error.message}") from error

    def render(self, text: str, columns: Mapping[str, object]) -> str:
        """The prompt of a problem. ValueError, with the available variables, when the template cannot be filled in."""
        variables = {**columns, "prompt": text}
        try:
            return self._template.render(variables)
        except UndefinedError as error:
            available = ", ".join(sorted(variables))
            raise ValueError(f"task.template: {error.message}; available are: {available}") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ValueError(f"task.template: cannot be filled in: {error}") from error
