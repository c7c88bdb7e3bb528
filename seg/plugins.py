"""Loads built-in parts, parts of installed distributions and the user's own, and lists and describes parts.

A plugin is a Python module; importing it registers its parts. The user's plugins are recorded as lines that load them
again when the snapshot `config.gin` is parsed.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pathlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable

from seg import files, registry
from seg.errors import UserError, shown_path
from seg.registry import entries

ENTRY_POINT_GROUP = 'seg.plugins'
CHECKOUT = pathlib.Path(__file__).resolve().parents[1]

# Lines for the snapshot, in order of loading: `import pkg.mod`, or `include '/path/file.py'`.
recorded: list[str] = []
_files: dict[str, None] = {}  # Real paths of the loaded plugin files, in order.
_entered: set[tuple[str, str]] = set()  # Loaded entry points: (name, value).


def load_builtins(package: str = 'seg') -> None:
    """Imports every module of the part packages, `seg.backbones` to `seg.tasks`."""
    for kind in registry.KINDS:
        parts = importlib.import_module(f'{package}.{kind}')
        for module in pkgutil.walk_packages(parts.__path__, f'{parts.__name__}.'):
            importlib.import_module(module.name)


def load_entry_points() -> None:
    """Loads the entry points of the group `seg.plugins`: each names a module, or a function to call.

    Raises:
      UserError: if one fails; the message names distribution, entry point and error.
    """
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if (point.name, point.value) in _entered:
            continue
        try:
            plugin = point.load()
            if inspect.isfunction(plugin):
                plugin()
        except Exception as error:
            distribution = point.dist.name if point.dist else 'unknown'
            raise UserError(
                f'Entry point {point.name!r} = {point.value!r} (group {ENTRY_POINT_GROUP}) of the installed '
                f'distribution {distribution!r} failed.\n{_describe(error)}\n'
                f'Repair it, or remove it with `pip uninstall {distribution}`.'
            ) from error
        _entered.add((point.name, point.value))


def load(specs: Iterable[str], place: str = '--plugins') -> list[str]:
    """Loads plugins by module name or by path, with the working directory importable.

    Args:
      specs: such as `pkg.mod` or `path/file.py`.
      place: the flag or file that names them, for messages.

    Returns:
      The lines that the snapshot records for them.

    Raises:
      UserError: if one is not found or fails.
    """
    return [load_file(spec, place) if spec.endswith('.py') else load_module(spec, place) for spec in specs]


def load_module(name: str, place: str) -> str:
    """Imports a plugin module; returns the line recorded for it."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        importlib.import_module(name)
    except Exception as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and (name == absent or name.startswith(absent + '.')):
            raise UserError(_not_found(name, absent, place)) from None
        raise UserError(f'{place}: the plugin {name!r} failed on import.\n{_describe(error)}') from error
    return _record(f'import {name}')


def load_file(path: str, place: str, beside: str | None = None) -> str:
    """Runs a plugin file once, as a module named after its path; returns the line recorded for it.

    The path is searched in the working directory, beside the gin file `beside` that includes it, then in the checkout;
    '~' is the home directory. If a snapshot names a file that has moved, a loaded plugin with the same file name
    replaces it.
    """
    moved = [loaded for loaded in _files if os.path.basename(loaded) == os.path.basename(path)]
    if moved and not any(candidate.is_file() for candidate in _candidates(path, beside)):
        return _record(f'include {moved[-1]!r}')
    found = find_file(path, place, beside)
    real = os.path.realpath(found)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not (real in _files or _imported_from(real)):
        name = f'seg_plugin_{found.stem}_{hashlib.sha1(real.encode()).hexdigest()[:8]}'
        spec = importlib.util.spec_from_file_location(name, real)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # Before it runs, because dataclasses and pickle look up their module.
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise UserError(f'{place}: the plugin {shown_path(real)} failed on import.\n{_describe(error)}') from error
    _files[real] = None
    return _record(f'include {real!r}')


def find_file(path: str, place: str, beside: str | None = None) -> pathlib.Path:
    """Finds a plugin file; arguments as for `load_file`.

    Raises:
      UserError: if there is none.
    """
    candidates = _candidates(path, beside)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    for candidate in candidates:
        if kind := files.irregular(str(candidate)):
            raise UserError(f'{place}: {str(candidate)!r} is {kind}, expected a plugin file.')
    raise UserError(_no_file(path, place))


def _candidates(path: str, beside: str | None) -> list[pathlib.Path]:
    folders = [pathlib.Path.cwd(), *([pathlib.Path(beside).parent] if beside else []), CHECKOUT]
    return [folder / os.path.expanduser(path) for folder in folders]


def _record(line: str) -> str:
    if line not in recorded:
        recorded.append(line)
    return line


def _imported_from(real: str) -> bool:
    files = (getattr(module, '__file__', None) for module in list(sys.modules.values()))
    return any(file and os.path.realpath(file) == real for file in files)


def _describe(error: Exception) -> str:
    """Names the error, the plugin's line that led to it and, if it is another one, the line that raised it."""
    if isinstance(error, UserError):
        return f'  {error}'
    if isinstance(error, SyntaxError):
        where = f' ({shown_path(error.filename)}:{error.lineno})' if error.filename else ''
        return f'  {type(error).__name__}: {error.msg}{where}'
    ours = (__file__, importlib.__file__, importlib.metadata.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in ours and not frame.filename.startswith('<frozen')
    ]
    lines = [f'  {type(error).__name__}: {error}']
    if frames:
        lines.append(f'  in {shown_path(frames[0].filename)}:{frames[0].lineno}: {frames[0].line}')
    if len(frames) > 1:
        lines.append(f'  raised in {shown_path(frames[-1].filename)}:{frames[-1].lineno}: {frames[-1].line}')
    return '\n'.join(lines)


def _not_found(name: str, absent: str, place: str) -> str:
    """Explains a missing module by the files beside it."""
    package, _, last = absent.rpartition('.')
    folders = [os.getcwd()]
    if package:
        folders = [str(path) for path in getattr(sys.modules.get(package), '__path__', [])]
    known = {os.path.splitext(file)[0] for folder in folders if os.path.isdir(folder) for file in os.listdir(folder)}
    near = registry.near_misses(last, (candidate for candidate in known if candidate.isidentifier()))
    hints = ''.join(f'\n  Did you mean {f"{package}." if package else ""}{candidate}?' for candidate in near)
    return (
        f'{place}: no module {name!r}: {absent!r} was not found in {", ".join(folders) or "its package"}'
        f'{"" if package else " or among the installed packages"}.{hints}\n'
        '  Name a module that can be imported from the working directory, or a file such as path/file.py.'
    )


def _no_file(path: str, place: str) -> str:
    folder = pathlib.Path.cwd() / os.path.dirname(path)
    known = [file.name for file in folder.glob('*.py')] if folder.is_dir() else []
    near = registry.near_misses(os.path.basename(path), known)
    hints = ''.join(f'\n  Did you mean {os.path.join(os.path.dirname(path), file)}?' for file in near)
    return (
        f'{place}: no plugin file {path!r}; looked in {os.getcwd()} and {CHECKOUT}.{hints}\n'
        f'  If it has moved, give its new place: --plugins=new/place/{os.path.basename(path)}'
    )


def list_text(pattern: str = '') -> str:
    """Returns the text of `--list`: a line per part, by kind, then the settings of runs.

    Args:
      pattern: '' for everything, a kind, `settings`, or a glob against `name` or `kind.name`.

    Raises:
      UserError: if nothing matches.
    """
    sections = []
    for kind, parts in registry.KINDS.items():
        chosen = [
            entry
            for entry in parts.entries()
            if pattern in ('', kind) or fnmatch.fnmatch(entry.name, pattern) or fnmatch.fnmatch(entry.key, pattern)
        ]
        if chosen:
            width = max(len(entry.name) for entry in chosen)
            sections.append('\n'.join([kind, *(f'  {entry.name:<{width}}  {entry.summary}' for entry in chosen)]))
            # A part may stand for many, such as the models of a library.
            many = [entry.builder for entry in chosen if pattern and hasattr(entry.builder, 'catalogue')]
            sections += [builder.catalogue() for builder in many]
    plain = [entry for entry in registry.ENTRIES.values() if not entry.kind]
    plain = [e for e in plain if pattern in ('', 'settings') or fnmatch.fnmatch(e.name, pattern)]
    if plain:
        sections.append('\n'.join(['settings', *map(_settings, sorted(plain, key=lambda entry: entry.name))]))
    if pattern and not sections and pattern not in registry.KINDS:
        raise UserError(f'--list={pattern}: nothing matches; {registry.unknown(pattern.strip("*?"))}')
    return '\n\n'.join(sections) or f'No {pattern or "parts"} are registered. {registry.LOAD_MORE}'


def _settings(entry: registry.Entry) -> str:
    """Lines of a plain configurable such as `RunConfig`: what it is, and each setting with default and meaning."""
    meanings = _meanings(inspect.getdoc(entry.builder) or '')
    if inspect.isclass(entry.builder):
        meanings |= _meanings(inspect.getdoc(entry.builder.__init__) or '')
    lines = [(f'{entry.name}.{name} = {_default(entry, name)}', meanings.get(name, '')) for name in entry.settable]
    width = max((len(line) for line, _ in lines), default=0)
    return '\n'.join([f'  {entry.summary}', *(f'    {line:<{width}}  {meaning}'.rstrip() for line, meaning in lines)])


def _meanings(doc: str) -> dict[str, str]:
    """The first sentence on each attribute or argument that a docstring describes, by its name."""
    found: dict[str, str] = {}
    name = ''
    for line in doc.partition('Attributes:' if 'Attributes:' in doc else 'Args:')[2].splitlines():
        if match := re.match(r'  (\w+): (.*)', line):
            name, found[match[1]] = match[1], match[2]
        elif line.startswith('    ') and name:
            found[name] += f' {line.strip()}'
        elif line.strip():
            break
    return {name: re.split(r'(?<=[.;]) ', text)[0].rstrip('.;') for name, text in found.items()}


def describe_text(reference: str) -> str:
    """Returns the text of `--describe @backbones.resnet50`: place, docstring, settings and supplied arguments.

    Raises:
      UserError: if the name is unknown, or belongs to several kinds.
    """
    key = reference.lstrip('@').rpartition('/')[2].removesuffix('()').removeprefix('seg.')
    matches = [entry for entry in registry.ENTRIES.values() if key in (entry.key, entry.name)]
    if not matches:
        raise UserError(f'--describe={reference}: {registry.unknown(key)}')
    if len(matches) > 1:
        choices = ' or '.join(entry.reference for entry in matches)
        raise UserError(f'--describe={reference}: the name is used more than once; write {choices}.')
    (entry,) = matches
    lines = [f'{entry.reference}  ({entry.place})', '', inspect.cleandoc(entry.builder.__doc__), '']
    lines.append('Set in gin:' if entry.settable else 'Nothing can be set in gin.')
    for name in entry.settable:
        remark = '    # may change when a run is resumed' if name in entry.free else ''
        lines.append(f'  {entry.key}.{name} = {_default(entry, name)}{remark}')
    lines.append(f'Supplied by the framework: {", ".join(entry.supplied) or "nothing"}.')
    if entry.settable:
        name = entry.settable[0]
        lines.append(f'For example: --gin_param="{entry.key}.{name}={_default(entry, name).partition("  ")[0]}"')
    return '\n'.join(lines)


def _default(entry: registry.Entry, name: str) -> str:
    default = entry.signature.parameters[name].default
    if dataclasses.is_dataclass(entry.builder):
        fields = {field.name: field for field in dataclasses.fields(entry.builder)}
        if name in fields and fields[name].default_factory is not dataclasses.MISSING:
            default = fields[name].default_factory()
    if default is inspect.Parameter.empty or default is entries.REQUIRED:
        return '...  (required)'
    return registry.entry_of(default).reference if registry.entry_of(default) else repr(default)
