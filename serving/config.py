"""Configuration: flags > environment > YAML file > defaults, one frozen class per service, unknown names refused."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

Port = Annotated[int, Field(ge=0, le=65535)]
PositiveInt = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
Config = TypeVar("Config", bound="ServiceConfig")


def settings_config(env_prefix: str) -> SettingsConfigDict:
    """The `model_config` of a service's configuration class, with its environment prefix."""
    return SettingsConfigDict(
        env_prefix=env_prefix,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
    )


class ConfigSection(BaseModel):
    """A nested part of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AdmissionConfig(ConfigSection):
    """How much work may be inside at once."""

    max_items: PositiveInt = 256
    """Requests (or batch items) inside at once; more are refused with RESOURCE_EXHAUSTED."""

    max_tokens: PositiveInt = 1_000_000
    """Tokens inside at once."""


class TransportConfig(ConfigSection):
    """The gRPC server's own limits."""

    max_message_bytes: PositiveInt = 16 * 1024 * 1024
    """Largest message received or sent."""

    max_connection_age_seconds: Annotated[float, Field(gt=0)] = 1800.0
    """Connections older than this are closed gracefully, so that clients find new replicas; gRPC adds 10 % jitter."""

    max_connection_age_grace_seconds: Seconds = 120.0
    """How long calls on an old connection may still run."""


class ServiceConfig(BaseSettings):
    """What every service can be told."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or [::] for every interface."""

    port: Port = 0
    """gRPC port; 0 takes a free one."""

    metrics_port: Port = 0
    """Prometheus port; 0 takes a free one."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged; query and passage texts appear at debug only."""

    log_format: Literal["text", "json"] = "text"
    """How log lines look."""

    drain_seconds: Seconds = 1.0
    """After SIGTERM: how long calls are still accepted while health says NOT_SERVING, so that callers move away."""

    shutdown_grace_seconds: Seconds = 30.0
    """After draining: how long accepted calls may still run."""

    canary_interval_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How often the service proves that it still works; health follows the outcome."""

    admission: AdmissionConfig = AdmissionConfig()
    transport: TransportConfig = TransportConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Constructed directly, only the arguments count; `load_config` reads the other sources."""
        return (init_settings,)


def load_config(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Reads the configuration of a service's process.

    Exits with status 2 and one line per problem when anything is unknown or invalid; with status 0 after
    `--print-config`.

    Args:
        config_class: What to fill.
        argv: The flags; the process's own when None.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--print-config", action="store_true")
    known, flags = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    try:
        given = _read_yaml(known.config) if known.config else {}
        _refuse_unknown_environment(config_class, os.environ)
        _merge(given, EnvSettingsSource(config_class)())
        _merge(given, _read_flags(config_class, flags))
        config = config_class(**given)
    except ValidationError as error:
        _refuse(*(_explain(config_class, detail) for detail in error.errors()))
    except (ValueError, OSError) as error:
        _refuse(str(error))
    if known.print_config:
        yaml.safe_dump(config.model_dump(mode="json"), sys.stdout, sort_keys=False)
        raise SystemExit(0)
    return config


def field_paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Every field of a configuration, sections and leaves alike, as a path of names."""
    for name, info in model.model_fields.items():
        yield (name,)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from ((name, *path) for path in field_paths(info.annotation))


def _read_flags(config_class: type[ServiceConfig], flags: Sequence[str]) -> dict[str, Any]:
    prefix = config_class.model_config["env_prefix"]
    epilog = f"Also: --config FILE (YAML), --print-config. Environment: {prefix}NAME, {prefix}SECTION__NAME."
    root = argparse.ArgumentParser(description=config_class.__doc__, epilog=epilog, allow_abbrev=False)
    source: CliSettingsSource[Any] = CliSettingsSource(config_class, root_parser=root, cli_parse_args=list(flags))
    return dict(source())


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"--config {path}: not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"--config {path}: expected a mapping of names to values")
    return content


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _refuse_unknown_environment(config_class: type[ServiceConfig], environment: Mapping[str, str]) -> None:
    prefix = str(config_class.model_config["env_prefix"]).upper()
    known = {prefix + "__".join(path).upper() for path in field_paths(config_class)}
    unknown = sorted(name for name in environment if name.upper().startswith(prefix) and name.upper() not in known)
    if unknown:
        raise ValueError(f"unknown environment variable {', '.join(unknown)}; see --help for the names")


def _explain(config_class: type[ServiceConfig], detail: Mapping[str, Any]) -> str:
    path = [str(part) for part in detail["loc"]]
    flag = "--" + ".".join(path).replace("_", "-")
    variable = str(config_class.model_config["env_prefix"]) + "__".join(path).upper()
    if detail["type"] == "extra_forbidden":
        return f"unknown setting {'.'.join(path)}"
    return f"{flag} ({variable}): {detail['msg']}, not {detail['input']!r}"


def _refuse(*problems: str) -> NoReturn:
    for problem in problems:
        sys.stderr.write(f"configuration: {problem}\n")
    raise SystemExit(2)
