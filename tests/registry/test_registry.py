"""Registration, references, and the messages about wrong ones."""

import dataclasses
import functools
import textwrap

import gin
import pytest

from seg import plugins, registry
from seg.errors import UserError, shown_path
from seg.registry import KINDS, augments, backbones, datasets, decoders, entries, losses, metrics, tasks


@pytest.fixture(autouse=True)
def _empty():
    """Without the parts that other tests of this process have loaded."""
    with registry.temporary():
        known = gin.config._REGISTRY
        for selector in registry.ENTRIES:
            known.pop(selector)
        for builder in entries._BY_BUILDER:
            gin.config._INVERSE_REGISTRY.pop(builder, None)
        registry.ENTRIES.clear()
        entries._BY_BUILDER.clear()
        yield


def tiny(*, output_stride, norm=None, depth=2, stem='conv7'):
    """A tiny net.

    It has two layers.
    """
    return {'output_stride': output_stride, 'norm': norm, 'depth': depth, 'stem': stem}


def message(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def receive(text, builder_holding_slot):
    """Parses gin text and returns what `root(value)` received."""

    @gin.register('root', module='test')
    def root(value=None):
        return builder_holding_slot(value) if builder_holding_slot else value

    gin.parse_config(text)
    return gin.get_configurable(root)()


def test_register_returns_the_builder_and_keeps_an_entry():
    assert backbones.register('tiny', free=['stem'])(tiny) is tiny
    entry = backbones.get('tiny')
    assert (entry.key, entry.reference, entry.summary) == ('backbones.tiny', '@backbones.tiny', 'A tiny net.')
    assert entry.file == __file__ and entry.line > 1
    assert entry.supplied == ('output_stride', 'norm') and entry.settable == ('depth', 'stem')
    assert entry.free == ('stem',)
    assert tiny(output_stride=8)['depth'] == 2


def test_kinds():
    assert list(KINDS) == (
        'backbones decoders heads losses datasets augments metrics optimizers schedules models tasks'.split()
    )
    assert losses.noun == 'loss' and KINDS['metrics'].noun == 'metric'


def test_build_passes_what_the_signature_takes():
    @backbones.register('narrow')
    def narrow(*, output_stride, depth=1):
        """Takes the essential argument only."""
        return output_stride, depth

    gin.parse_config('backbones.narrow.depth = 5')
    reference = gin.get_configurable(narrow)
    assert backbones.build(reference, 'slot', output_stride=16, norm='bn') == (16, 5)
    with pytest.raises(TypeError, match='num_classes'):
        backbones.build(reference, 'slot', output_stride=16, num_classes=3)


def test_reference_of_a_class_and_of_a_dataclass():
    @augments.register('flip')
    @dataclasses.dataclass
    class Flip:
        """Flips."""

        ignore_label: int
        sides: list = dataclasses.field(default_factory=list)

    built = receive("root.value = @augments.flip\naugments.flip.sides = ['left']", None)
    assert registry.entry_of(built) is augments.get('flip')
    flip = augments.build(built, 'slot', ignore_label=255)
    assert type(flip) is Flip and flip.sides == ['left'] and flip.ignore_label == 255


def test_a_subclass_is_not_its_registered_parent():
    @augments.register('parent')
    class Parent:
        """Parent."""

    class Child(Parent):
        pass

    assert registry.entry_of(Child) is None
    assert 'not registered' in message(augments.check, Child, 'slot')


def test_keras_layer():
    import keras

    @decoders.register('layered')
    class Layered(keras.layers.Layer):
        """A layer as a part."""

        def __init__(self, *, backbone, channels=4, name='layered'):
            super().__init__(name=name)
            self.backbone, self.channels = backbone, channels

    layer = receive('root.value = @decoders.layered\ndecoders.layered.channels = 7', None)
    layer = decoders.build(layer, 'models.x.decoder', backbone='spec', norm=None)
    assert type(layer) is Layered and layer.channels == 7
    said = message(decoders.check, layer, 'models.x.decoder')
    assert 'built already: write @decoders.layered, without ()' in said


def test_the_scope_of_the_check_holds_when_called_later():
    backbones.register('tiny')(tiny)
    text = """
        root.value = @backbones.tiny
        backbones.tiny.depth = 10
        train/backbones.tiny.depth = 20
        eval/backbones.tiny.depth = 30
    """
    reference = receive(textwrap.dedent(text), None)
    with gin.config_scope('train'):
        factory = backbones.check(reference, 'slot')
    with gin.config_scope('eval'):
        assert factory(output_stride=8)['depth'] == 20
    assert factory.entry is backbones.get('tiny')
    assert backbones.check(factory, 'other').slot == 'other'
    root = backbones.check(reference, 'slot')
    with gin.config_scope('eval'):
        assert root(output_stride=8)['depth'] == 10


def test_a_scoped_reference_keeps_its_own_scope():
    backbones.register('tiny')(tiny)
    reference = receive('root.value = @train/backbones.tiny\ntrain/backbones.tiny.depth = 20', None)
    assert backbones.build(reference, 'slot', output_stride=8)['depth'] == 20


def test_wrong_references_name_slot_and_spelling():
    backbones.register('tiny')(tiny)

    @decoders.register('plain')
    def plain(*, backbone):
        """Plain decoder."""

    slot = 'models.deeplab.backbone'
    assert 'write @backbones.tiny, without quotes' in message(backbones.check, 'tiny', slot)
    assert 'without quotes' in message(backbones.check, '@backbones.tiny', slot)
    assert 'Did you mean @backbones.tiny?' in message(backbones.check, 'tyny', slot)
    assert 'without ()' in message(backbones.check, object(), slot)
    said = message(backbones.check, plain, slot)
    assert said.startswith(slot) and '@decoders.plain' in said and 'belongs to decoders' in said
    assert f'{shown_path(__file__)}:' in said and 'Known backbones: tiny' in said
    assert 'not registered' in message(backbones.check, lambda: 0, slot)
    assert 'Received None' in message(backbones.check, None, slot)
    assert "Received ['a']" in message(backbones.check, ['a'], slot)


def test_a_builder_that_returns_none():
    @losses.register('mine')
    def mine(*, num_classes):
        """Mine."""

    assert '@losses.mine' in (text := message(losses.build, mine, 'task.loss', num_classes=2)) and 'None' in text


def test_missing_parameters_name_the_binding():
    @backbones.register('deep')
    def deep(*, output_stride, depth):
        """Deep."""

    @backbones.register('wide')
    def wide(*, output_stride, width=gin.REQUIRED):
        """Wide."""

    @augments.register('crop')
    class Crop:
        """Crops."""

        def __init__(self, size, *, ignore_label):
            pass

    said = message(backbones.build, gin.get_configurable(deep), 'models.x.backbone', output_stride=8)
    assert said.startswith('models.x.backbone: @backbones.deep') and 'backbones.deep.depth = ' in said
    assert 'backbones.wide.width = ' in message(
        backbones.build, gin.get_configurable(wide), 'models.x.backbone', output_stride=8
    )
    assert 'augments.crop.size = ' in message(augments.build, gin.get_configurable(Crop), 'slot', ignore_label=0)
    with pytest.raises(TypeError, match='output_stride'):  # A mistake of the caller, not of the user.
        backbones.build(gin.get_configurable(deep), 'models.x.backbone')


def test_errors_inside_a_builder_name_the_line():
    def helper(*, needed):
        pass

    @backbones.register('broken')
    def broken(*, output_stride):
        """Fails inside."""
        helper()

    @backbones.register('refusing')
    def refusing(*, output_stride):
        """Refuses."""
        raise UserError('stride too small')

    with pytest.raises(UserError) as caught:
        backbones.build(gin.get_configurable(broken), 'models.x.backbone', output_stride=8)
    line = broken.__code__.co_firstlineno + 3
    parts = ('models.x.backbone: @backbones.broken', f'{shown_path(__file__)}:{line}: TypeError', 'helper')
    assert all(part in str(caught.value) for part in parts)
    assert "'broken'" in ''.join(caught.value.__cause__.__notes__)
    assert message(backbones.build, gin.get_configurable(refusing), 'slot', output_stride=8) == 'stride too small'


def test_causes_survive_gin():
    @backbones.register('caused')
    def caused(*, output_stride):
        """Raises with a cause."""
        raise ValueError('outer') from KeyError('inner')

    with pytest.raises(UserError) as caught:
        backbones.build(gin.get_configurable(caused), 'slot', output_stride=8)
    assert isinstance(caught.value.__cause__, ValueError) and isinstance(caught.value.__cause__.__cause__, KeyError)


def test_duplicates_name_both_places():
    backbones.register('tiny')(tiny)

    def other(*, output_stride):
        """Another."""

    said = message(backbones.register('tiny'), other)
    assert said.count(shown_path(__file__)) == 2 and 'taken by tiny' in said
    assert 'registered as' in message(backbones.register('second'), tiny)


def test_the_same_function_again_replaces_the_old_one():
    source = "@backbones.register('cell')\ndef cell(*, output_stride, depth={}):\n  'Cell.'\n  return depth\n"
    for depth in (1, 2):
        namespace = {'backbones': backbones, '__name__': '__main__'}
        exec(compile(source.format(depth), f'<cell {depth}>', 'exec'), namespace)
    reference = receive('root.value = @backbones.cell', None)
    assert backbones.build(reference, 'slot', output_stride=8) == 2
    assert backbones.names().count('cell') == 1


@pytest.mark.parametrize(
    'source, expected',
    [
        ("def f(*, output_stride, **kwargs):\n  'F.'", r'\*\*kwargs'),
        ("def f(*layers, output_stride):\n  'F.'", r'\*layers'),
        ("def f(output_stride, /):\n  'F.'", 'hides'),
        ("def f(*, depth=1):\n  'F.'", "has to take 'output_stride'"),
        ('def f(*, output_stride):\n  pass', 'no docstring'),
        ("import functools\ndef g(*, output_stride):\n  'G.'\nf = functools.partial(g)", 'a function or a class'),
        ('import dataclasses\n@dataclasses.dataclass\nclass f:\n  output_stride: int', 'no docstring'),
    ],
)
def test_rules_for_builders(source, expected):
    namespace = {'__name__': 'somewhere'}
    exec(source, namespace)
    with pytest.raises(UserError, match=expected):
        backbones.register('f')(namespace['f'])
    assert 'f' not in backbones.names()


def test_targets_are_checked():
    assert "target='label_map'" in message(tasks.register('mine'), tiny)
    assert "target='label_map'" in message(backbones.register('tiny', target='label_map'), tiny)
    assert "target=''" in message(metrics.register('tiny', target=''), tiny)

    @metrics.register('far', target='depth')
    def far():
        """Far."""

    assert metrics.get('far').target == 'depth'


def test_names_and_free_parameters_are_checked():
    assert 'letters' in message(backbones.register('res-net'), tiny)
    assert "free=['norm']" in message(backbones.register('tiny', free=['norm']), tiny)


def test_no_registration_after_parsing():
    gin.finalize()
    said = message(backbones.register('tiny'), tiny)
    assert 'parsed already' in said and '--plugins' in said


def test_decorated_builders_are_found():
    def noisy(function):
        @functools.wraps(function)
        def wrapper(**kwargs):
            return function(**kwargs)

        return wrapper

    backbones.register('tiny')(tiny)
    assert registry.entry_of(noisy(tiny)) is backbones.get('tiny')


def test_unknown_names_have_near_misses_and_a_way_to_load_more():
    backbones.register('tiny_net')(tiny)
    said = message(backbones.get, 'tinynet')
    assert 'no backbone named' in said and 'Did you mean backbones.tiny_net?' in said
    assert shown_path(__file__) in said
    assert '--plugins' in said and 'import pkg.mod' in said and 'seg.plugins' in said
    assert 'backbones.tiny_net' in message(decoders.get, 'tiny_net')
    assert 'Did you mean backbones.tiny_net?' in registry.unknown('backbone.tiny_net')
    assert 'Did you mean backbones.tiny_net?' in registry.unknown('tinynet')


def test_names_of_other_things_have_no_near_misses():
    """`DatasetInfo` resembles the kind of `datasets.coco`, not its name."""

    @datasets.register('coco')
    def coco():
        """Reads COCO."""

    said = message(plugins.describe_text, 'DatasetInfo')
    assert "nothing named 'DatasetInfo' is registered" in said and '--list' in said and 'coco' not in said


def test_list_and_describe():
    backbones.register('tiny_net', free=['stem'])(tiny)

    @decoders.register('tiny_net')
    def decoder(*, backbone):
        """Nothing to set."""

    assert '  tiny_net  A tiny net.' in plugins.list_text()
    assert plugins.list_text('backbones') == 'backbones\n  tiny_net  A tiny net.'
    assert plugins.list_text('tiny*').count('tiny_net') == 2
    assert plugins.list_text('heads').startswith('No heads')
    assert 'Did you mean' in message(plugins.list_text, 'backbones.tinynet')
    text = plugins.describe_text('@backbones.tiny_net')
    assert shown_path(__file__) in text and 'It has two layers.' in text
    assert "backbones.tiny_net.stem = 'conv7'    # may change when a run is resumed" in text
    assert 'Supplied by the framework: output_stride, norm.' in text
    assert '--gin_param="backbones.tiny_net.depth=2"' in text
    assert '@backbones.tiny_net or @decoders.tiny_net' in message(plugins.describe_text, 'tiny_net')
    assert 'Nothing can be set' in plugins.describe_text('decoders.tiny_net')


def test_temporary_takes_registrations_back():
    with registry.temporary():
        backbones.register('fleeting')(tiny)
        assert gin.config._REGISTRY.matching_selectors('backbones.fleeting')
    assert 'fleeting' not in backbones.names()
    assert not gin.config._REGISTRY.matching_selectors('backbones.fleeting')
    backbones.register('fleeting')(tiny)


def test_gin_is_the_version_whose_insides_are_known():
    import importlib.metadata

    assert importlib.metadata.version('gin-config') == '0.5.0'
