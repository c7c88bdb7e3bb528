"""Gin text as users write it: what parses, what is refused and how, what is reported and recorded."""

import dataclasses
import re
import textwrap

import gin
import pytest

from seg import config, gin_files, registry
from seg.errors import UserError
from seg.registry import augments, backbones, datasets, decoders, models
from seg.run import settings


@pytest.fixture(autouse=True)
def _parts(tmp_path, monkeypatch):
    """Registers a little framework, for one test, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    with registry.temporary():
        _register_parts()
        yield


def _register_parts():
    @backbones.register('res')
    def res(*, output_stride, depth=50, stem='conv7', taps=None):
        """Res."""
        return {'depth': depth, 'stem': stem, 'taps': taps}

    @backbones.register('mobile')
    def mobile(*, output_stride, alpha=1.0):
        """Mobile."""
        return {'alpha': alpha}

    @decoders.register('skip')
    def skip(*, backbone, channels=256):
        """Skip."""

    @datasets.register('voc', free=['data_dir'])
    def voc(*, data_dir, split, augment=None):
        """Voc."""
        return {'split': split, 'augment': augments.build(augment, 'datasets.voc.augment') if augment else None}

    @augments.register('crop')
    class Crop:
        """Crop."""

        def __init__(self, *, size=None, scales=(0.5, 2.0)):
            self.size, self.scales = size, scales

    @models.register('net')
    def net(*, num_classes, backbone, extra=None):
        """Net."""
        return backbones.build(backbone, 'models.net.backbone', output_stride=16)

    @config.configurable('trial', supplied=['mode'], free=['note'])
    def trial(*, mode, model, train_data=None, eval_data=None, steps=10, note=''):
        """The root."""
        built = {'model': models.build(model, 'trial.model', num_classes=3), 'steps': steps}
        if mode != 'eval' and train_data:
            built['train'] = datasets.build(train_data, 'trial.train_data', seed=0)
        if mode != 'train' and eval_data:
            built['eval'] = datasets.build(eval_data, 'trial.eval_data', seed=0)
        return built

    @config.configurable('Settings', supplied=['model_dir'], free=['period'])
    @dataclasses.dataclass(frozen=True)
    class Settings:
        """Settings of a run."""

        model_dir: str
        period: int = 100
        names: list = dataclasses.field(default_factory=list)


BASE = """
    BACKBONE = @backbones.res
    DATA_DIR = '/data'
    trial:
      model = @models.net
      train_data = @train/datasets.voc
      eval_data = @eval/datasets.voc
    models.net.backbone = %BACKBONE
    datasets.voc.data_dir = %DATA_DIR
    train/datasets.voc.split = 'train'
    eval/datasets.voc.split = 'val'
"""


def write(name, text):
    import pathlib

    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return str(path)


def run(text=BASE, params=(), mode='train_and_eval'):
    config.clear()
    config.parse([write('run.gin', text)], params)
    return config.injected('trial')(mode=mode)


def refused(text='', params=()):
    config.clear()
    with pytest.raises(UserError) as caught:
        config.parse([write('run.gin', text)], params)
    return str(caught.value)


def unused(text=BASE, params=(), mode='train_and_eval', idle=()):
    """Runs and returns {key: (is an error, reason)} of unread bindings."""
    run(text, params, mode)
    return {item.key: (item.error, item.reason) for item in config.unused(idle)}


# Parsing and injection.


def test_a_run():
    built = run(params=['trial.steps = 7', 'backbones.res.depth=18'])
    assert built['model'] == {'depth': 18, 'stem': 'conv7', 'taps': None} and built['steps'] == 7
    assert (built['train']['split'], built['eval']['split']) == ('train', 'val')
    assert config.report_unused() == ''


def test_the_configuration_is_locked():
    run()
    with pytest.raises(RuntimeError, match='locked'):
        gin.bind_parameter('trial.steps', 3)
    with pytest.raises(RuntimeError, match='clear'):
        config.parse()


def test_a_dataclass_is_injected():
    config.parse([], ['Settings.period = 5', "Settings.names = ['a']"])
    settings = config.injected('Settings')(model_dir='/m')
    assert settings == settings.__class__('/m', 5, ['a'])
    assert "'model_dir' of Settings" in refused(params=['Settings.model_dir = 1'])


def test_a_missing_setting_of_the_root_names_the_binding():
    config.parse()
    with pytest.raises(UserError, match=r'trial\.model = '):
        config.injected('trial')(mode='train')


def test_scope():
    config.parse([], ['eval/backbones.res.depth = 3'])
    with config.scope('eval'):
        assert gin.get_configurable('seg.backbones.res')(output_stride=8)['depth'] == 3


# Files.


def test_includes_are_found_from_the_working_directory():
    write('gin/base.gin', BASE)
    write('gin/nested/top.gin', "include 'gin/base.gin'\ntrial.steps = 3\n")
    assert run("include 'gin/nested/top.gin'\ntrial.steps = 4\n")['steps'] == 4


def test_files_are_found_in_the_package_and_in_the_checkout_but_not_in_gin(tmp_path, monkeypatch):
    for folder in ('pkg/_files', 'checkout'):
        write(f'{folder}/gin/in_{folder[:3]}.gin', 'trial.steps = 1')
    write('checkout/gin/library.gin', 'trial.steps = 1')
    package = tmp_path / 'checkout' / 'seg'
    package.mkdir()
    (package / '_files').symlink_to(tmp_path / 'pkg' / '_files')
    monkeypatch.setattr(gin_files, '_SEG', package)
    assert gin_files.find_file('gin/in_pkg.gin', 'x').is_file()
    assert gin_files.find_file('gin/in_che.gin', 'x').is_file()
    monkeypatch.setattr(gin_files, '_GIN_LIBRARY', tmp_path / 'checkout' / 'gin')
    with pytest.raises(UserError):
        gin_files.find_file('gin/library.gin', 'x')


def test_missing_files_name_places_and_near_misses(tmp_path):
    write('gin/deeplab_voc.gin', '')
    with pytest.raises(UserError) as caught:
        config.parse(['gin/deeplab_vok.gin'])
    said = str(caught.value)
    assert said.startswith("--gin_file: no gin file 'gin/deeplab_vok.gin'")
    assert str(tmp_path / 'gin/deeplab_vok.gin') in said and '_files' in said
    assert 'Did you mean gin/deeplab_voc.gin?' in said
    with pytest.raises(UserError, match='Did you mean gin/deeplab_voc.gin'):
        config.parse([str(tmp_path / 'gin' / 'deeplab_vok.gin')])
    said = refused("\ninclude 'gin/deeplab_vok.gin'\n")
    assert said.startswith('run.gin:2: no gin file')


def test_a_file_that_includes_itself():
    write('other.gin', "include 'run.gin'")
    assert 'includes itself' in refused("include 'other.gin'")


def test_gin_logs_nothing_about_includes(caplog):
    write('gin/base.gin', BASE)
    run("include 'gin/base.gin'")
    assert 'Path not found' not in caplog.text


# Mistakes.


def test_unknown_reference():
    said = refused('models.net:\n  # One.\n  backbone = @backbones.rez\n')
    assert said.startswith("run.gin:3: @backbones.rez: no backbone named 'rez'")
    assert 'Did you mean backbones.res?' in said and 'test_config.py:' in said
    # Built-in parts may be loaded as well, by another test file in the same process.
    assert re.search('Known backbones: .*mobile, res', said) and '--plugins' in said
    assert 'backbone = @backbones.rez' in said


def test_unknown_reference_inside_a_list():
    said = refused('trial.note = [\n  @backbones.res,\n  @backbones.nothing_like_it,\n]\n')
    assert said.startswith('run.gin:3: @backbones.nothing_like_it')


def test_unknown_kind_and_wrong_kind():
    assert 'Did you mean backbones.mobile?' in refused('trial.note = @mobil')
    assert 'Did you mean backbones.mobile?' in refused('trial.note = @seg.backbones.mobil')
    assert 'Did you mean backbones.res?' in refused('trial.note = @backbone.res')
    assert 'Did you mean backbones.res?' in refused('trial.note = @decoders.res')


def test_ambiguous_reference():
    decoders.register('res')(lambda_builder())
    assert '@backbones.res or @decoders.res' in refused('trial.note = @res')


def lambda_builder():
    def decoder(*, backbone):
        """Decoder."""

    return decoder


def test_unknown_configurable():
    assert refused('trian.steps = 3').startswith("run.gin:1: trian: nothing named 'trian'")
    assert 'Did you mean trial?' in refused('\n\ntrian:\n  steps = 3\n')
    assert 'run.gin:3:' in refused('\n\ntrian:\n  steps = 3\n')


def test_unknown_parameter():
    said = refused(params=['backbones.res.dept = 3'])
    assert said.startswith('--gin_param="backbones.res.dept = 3": backbones.res (')
    assert "no parameter 'dept'. Did you mean depth? It has: depth, stem, taps" in said


def test_supplied_parameter():
    said = refused('\nbackbones.res.output_stride = 8\n')
    assert said.startswith('run.gin:2:') and 'supplied by the framework' in said and 'depth, stem, taps' in said


def test_called_reference():
    assert 'write @backbones.res, without ()' in refused('models.net.backbone = @backbones.res()')


@pytest.mark.parametrize(
    'param, expected',
    [
        ('DATA_DIR=/data/voc', 'strings need quotes: --gin_param="DATA_DIR=\'/data/voc\'"'),
        ('DATA_DIR=here', 'strings need quotes: --gin_param="DATA_DIR=\'here\'"'),
        ('DATA_DIR=~/voc', 'strings need quotes'),
        ('BACKBONE=res', 'a reference starts with @: BACKBONE = @backbones.res'),
        ('BACKBONE=backbones.mobile', 'BACKBONE = @backbones.mobile'),
        ('trial.note=true', 'write True'),
        ('trial.note=null', 'write None'),
        ('trial.steps=', 'trial.steps has no value'),
        ('trial.steps=1/2', 'no arithmetic'),
        ('trial.steps 3', 'Expected NAME = value'),
        ('trial.steps=[1, 2', 'a bracket or quote is open'),
        ("trial.note='abc", '--gin_param="trial.note=\'abc"'),
        ('trial.steps=3 4', 'no arithmetic'),
    ],
)
def test_values_that_cannot_be_read(param, expected):
    said = refused(params=[param])
    assert said.startswith(f'--gin_param="{param}"') and expected in said


def test_syntax_error_in_a_file():
    said = refused("\ntrial.steps = 3\nDATA_DIR = /data\ntrial.note = ''\n")
    assert said == "run.gin:3: cannot be read: strings need quotes: DATA_DIR = '/data'\n    DATA_DIR = /data"
    assert refused('trial:\nsteps = 3\n').startswith('run.gin:')
    assert refused('trial:\n  steps = 3\n note = 1\n').startswith('run.gin:3:')


def test_dynamic_registration_is_refused():
    assert 'run.gin:1' in refused('from __gin__ import dynamic_registration')


def test_macros():
    said = refused('trial.steps = %STEPSS\nSTEPS = 3\n')
    assert said.startswith('run.gin:1: trial.steps = %STEPSS uses the macro %STEPSS') and 'Did you mean %STEPS?' in said
    said = refused('DATA_DIR = %gin.REQUIRED\ndatasets.voc.data_dir = %DATA_DIR\n')
    assert said.startswith('run.gin:1: DATA_DIR has to be set') and '--gin_param="DATA_DIR=..."' in said
    assert 'defined by itself' in refused('A = [%B]\nB = %A\n')
    config.clear()
    config.parse([write('run.gin', 'DATA_DIR = %gin.REQUIRED')], ["DATA_DIR = '/d'"])


@pytest.mark.parametrize(
    ('line', 'params', 'value'),
    [
        ('STEPS = %gin.REQUIRED', (), '3'),
        ('STEPS = %gin.REQUIRED', ('STEPS = 4',), '4'),
        ('STEPS = 5', (), '5'),
    ],
)
def test_stand_ins_for_what_is_required(line, params, value):
    config.parse([write('run.gin', f'{line}\ntrial.steps = %STEPS\n')], params, {'STEPS': 3, 'OTHER': 3})
    assert config.bound_values()['trial.steps'] == value


def test_finalize_hooks_of_users(monkeypatch):
    def hook(_):
        raise ValueError('periods do not fit')

    monkeypatch.setattr(gin.config, '_FINALIZE_HOOKS', [hook])
    assert 'periods do not fit' in refused()


# Unused bindings.


def test_bindings_of_replaced_parts_are_a_note():
    found = unused(BASE + '    CROP = (65, 65)\n    augments.crop.size = %CROP\n    backbones.mobile.alpha = 0.5\n')
    assert found == {
        'augments.crop.size': (False, 'augments.crop was not built'),
        'backbones.mobile.alpha': (False, 'backbones.mobile was not built'),
        'CROP': (False, 'only augments.crop.size would read it'),
    }
    note = config.report_unused()
    assert 'backbones.mobile.alpha (run.gin:14): backbones.mobile was not built.' in note


def test_command_line_bindings_have_to_be_read():
    assert unused(params=['backbones.mobile.alpha = 0.5'])['backbones.mobile.alpha'][0]
    assert 'CROP' in unused(params=['CROP = 3'])
    with pytest.raises(UserError, match=r'(?s)--gin_param="CROP = 3": CROP: nothing refers to this macro'):
        config.report_unused()
    text = BASE + '    CROP = 1\n    augments.crop.size = %CROP\n'
    assert unused(text, ['CROP = 3'])['CROP'] == (True, 'only augments.crop.size would read it')


def test_unread_macros_are_an_error_with_a_near_miss():
    assert unused(BASE + '    BACKBON = 3\n')['BACKBON'] == (
        True, 'nothing refers to this macro; did you mean BACKBONE?',
    )  # fmt: skip


def test_scopes_that_match_nothing_are_an_error():
    assert unused(BASE + '    evla/datasets.voc.augment = None\n') == {
        'evla/datasets.voc.augment': (True, "no scope 'evla' exists; did you mean eval?")
    }
    error, reason = unused(BASE + '    train/backbones.res.depth = 3\n')['train/backbones.res.depth']
    assert error and reason == "backbones.res was built, but not in the scope 'train'"


def test_a_parameter_that_the_caller_decides_is_an_error():
    @models.register('bossy')
    def bossy(*, num_classes, backbone):
        """Decides the depth itself."""
        return backbone(output_stride=8, depth=7)

    text = BASE.replace('models.net', 'models.bossy') + '    backbones.res.depth = 3\n'
    assert unused(text)['backbones.res.depth'] == (True, "backbones.res was built, but its caller decides 'depth'")


def test_bindings_of_another_mode_are_a_note():
    assert unused(mode='train') == {
        'eval/datasets.voc.split': (False, "datasets.voc was not built in the scope 'eval'")
    }
    params = ["eval/datasets.voc.split = 'test'"]
    assert unused(params=params, mode='train')['eval/datasets.voc.split'][0]
    assert not unused(params=params, mode='train', idle=['eval/*'])['eval/datasets.voc.split'][0]
    text = BASE + "    EVAL_SPLIT = 'val'\n    eval/datasets.voc.split = %EVAL_SPLIT\n"
    found = unused(text, ["EVAL_SPLIT = 'x'"], mode='train', idle=['eval/*'])
    assert not found['EVAL_SPLIT'][0] and config.report_unused(['eval/*'])


def test_a_scope_that_nothing_refers_to_may_be_idle():
    text = BASE + '    summary/backbones.res.depth = 3\n'
    assert unused(text)['summary/backbones.res.depth'][0]
    assert not unused(text, idle=['summary/*'])
    given = unused(params=['summary/backbones.res.depth = 3'], idle=['summary/*'])
    assert not given['summary/backbones.res.depth'][0]


def test_a_binding_hidden_by_a_scoped_one():
    assert unused(BASE + "    datasets.voc.split = 'all'\n") == {}
    found = unused(params=["datasets.voc.split = 'all'"])
    error, reason = found['datasets.voc.split']
    assert error and reason.startswith('train/datasets.voc.split (run.gin:10) takes precedence')


def test_nested_parts_inherit_the_scope():
    text = (
        BASE
        + """
    datasets.voc.augment = @augments.crop
    train/augments.crop.size = 3
    """
    )
    assert unused(text) == {}


# Snapshots.

VALUES = """
    A = None
    B = (1, 2.5, -1e-05)
    LR = %B
    train/N = 3
    trial.model = @models.net
    trial.note = [{'a': (1,), 'b': [None, True, "it's\\n%A"]}, (), %LR, [@train/backbones.res, (@backbones.mobile,)]]
    trial.steps = %train/N
    models.net.backbone = @backbones.res
    models.net.extra = 'a long text, which a printer would like to break into pieces, ' \\
        'and which has to come back whole, because it is one value and not several'
    backbones.res.taps = [
        'a rather long name of a tap', 'a rather long name of a tap', 'a rather long name of a tap',
        'a rather long name of a tap', 'a rather long name of a tap', 'a rather long name of a tap',
    ]
"""


def test_the_snapshot_round_trips():
    run(VALUES)
    text, values = config.snapshot(), config.operative_values()
    assert 'LR = %B' in text and '(@backbones.mobile,)' in text and 'A = None' in text
    run(text)
    assert config.snapshot() == text and config.operative_values() == values


def test_the_operative_text_round_trips_and_holds_defaults():
    run(VALUES)
    text, values = config.operative(), config.operative_values()
    assert "backbones.res.stem = 'conv7'" in text and 'backbones.mobile' not in text.replace('@backbones.mobile', '')
    run(text)
    assert config.operative_values() == values


def test_operative_values_resolve_macros():
    run(VALUES)
    values = config.operative_values()
    assert values['trial.steps'] == '3'
    assert '(1, 2.5, -1e-05), [@train/backbones.res' in values['trial.note']
    assert not any('macro' in key or key in ('A', 'B', 'LR') for key in values)
    run()
    assert config.operative_values()['train/datasets.voc.data_dir'] == "'/data'"


def test_diff_leaves_free_values_out():
    run()
    old = config.operative_values()
    run(params=["DATA_DIR = '/elsewhere'", "trial.note = 'x'"])
    assert settings.diff(old, config.operative_values()) == ''
    run(params=['backbones.res.depth = 101'])
    assert settings.diff(old, config.operative_values()) == '  backbones.res.depth: 50 -> 101'
    assert settings.diff(old, config.operative_values(), free=lambda key: key.startswith('backbones.')) == ''
    run(params=['BACKBONE = @backbones.mobile'])
    assert settings.diff(old, config.operative_values()).splitlines() == [
        '  backbones.mobile: newly used',
        '  backbones.res: no longer used',
        '  models.net.backbone: @backbones.res -> @backbones.mobile',
    ]


def test_a_parameter_of_another_version_counts_where_it_is_set():
    now = {'losses.box.weight': '1.0', 'losses.box.beta': '1.0'}
    assert settings.diff(now | {'losses.box.stage_weights': 'None'}, now) == ''
    assert settings.diff(now, now | {'losses.box.stage_weights': 'None'}) == ''
    (line,) = settings.diff(now | {'losses.box.stage_weights': '(1, 2)'}, now).splitlines()
    assert 'losses.box.stage_weights' in line and '(1, 2)' in line


def test_declared_free():
    assert config.declared_free('train/datasets.voc.data_dir') and config.declared_free('Settings.period')
    assert not config.declared_free('datasets.voc.split') and not config.declared_free('other.x')


def test_markdown():
    run()
    assert '    BACKBONE = @backbones.res' in config.markdown(config.snapshot())


def test_the_origin_of_a_value(tmp_path):
    (tmp_path / 'mine.gin').write_text('STEPS = 5\ntrial.steps = %STEPS\n')
    config.parse([str(tmp_path / 'mine.gin')], ['STEPS=0', "eval/datasets.voc.split='vla'"])
    place = config.origin('trial.steps = 0: expected a whole number')
    assert 'mine.gin:2' in place and '%STEPS, set at --gin_param="STEPS=0"' in place
    assert "split='vla'" in config.origin("datasets.voc.split = 'vla': expected train or val")
    assert config.origin('trial.steps = 7: of another value') == config.origin('no setting') == ''
