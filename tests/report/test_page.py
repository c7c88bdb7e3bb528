"""The report: one sound, self-contained page from whatever a run has left."""

import base64
import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest

from seg.errors import UserError
from seg.files import read_json, write_json
from seg.report import page
from seg.run.folder import RunFolder
from seg.run.lock import locked
from tests.report import made, test_instances
from tests.report.pages import Page


@pytest.fixture
def no_curves(monkeypatch):
    """Curves take most of the time."""
    monkeypatch.setattr(page, 'curves', lambda run: [])


def report(folder) -> Page:
    with open(page.write(str(folder)), encoding='utf-8') as file:
        return Page(file.read())


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
    """A run with everything in it; to be read only."""
    folder = tmp_path_factory.mktemp('runs') / 'whole'
    made.run(folder)
    photos = [made.photo(f'{kind}/{i}', 60, 200) for kind in ('worst', 'best', 'fixed') for i in (1, 2)]
    charts = [made.figure(tag) for tag in ('confusion_matrix', 'class_iou', 'class_pixels')]
    made.events(folder, made.STEPS, [*charts, *photos])
    return folder


@pytest.fixture(scope='module')
def whole(whole_run):
    return report(whole_run)


def test_scores_are_those_of_the_results(whole_run, whole):
    results = json.loads((whole_run / 'results.json').read_text())
    exact = {value for value, _ in whole.values}
    assert set(results['metrics'].values()) <= exact
    assert {results['best']['miou'], results['train_seconds'], results['train_images_per_second']} <= exact
    assert (results['metrics']['miou'], f'{results["metrics"]["miou"]:.4f}') in whole.values


def test_every_number_that_is_shown_is_the_rounded_exact_one(whole):
    for exact, shown in whole.values:
        if re.fullmatch(r'[\d,.]+', shown):
            decimals = len(shown.partition('.')[2])
            assert abs(float(shown.replace(',', '')) - exact) <= 0.5001 * 10**-decimals
    assert len(whole.values) > 30


def test_classes_are_sorted_and_have_recall_and_precision(whole):
    order = [whole.source.index(f'>{name}</span></th>') for name in ('background', 'cat', 'dog')]
    assert order == [order[0], max(order), sorted(order)[1]]  # IoU 0.857, 0.353 (cat), 0.467 (dog).
    assert {'Recall', 'Precision', 'True pixels', 'Training pixels', '80.00 %'} <= set(map(str.strip, whole.text))
    values = {round(value, 6) for value, _ in whole.values}
    assert {0.9, 0.6, 0.7} <= values and round(70 / 120, 6) in values
    bars = [float(a['style'].split()[1][:-1]) for a in whole.of('i') if a.get('style', '').startswith('width')]
    assert bars == sorted(bars, reverse=True) and len(bars) == 3


def test_page_describes_the_run(whole):
    for part in (
        'Complete: 300 steps.', 'pets/train', 'pets/val', 'deeplab_v3plus, resnet18', '3,399,048', 'adamw',
        'Z80, 2 cores', '23.5 GiB', '2 × H100', 'bfloat16', 'MirroredStrategy, 2 replicas', '1 h 12 min',
        '300 steps, 2,400 images', 'evaluation: 41.2 images/s', 'EMA weights', '10.0 % of the training time',
        '6.0 s in 3 passes', '2.0 GiB of the main process', 'RunConfig.seed = 7', 'at step 200',
        'seg_main \\ --gin_file=gin/deeplab_voc.gin \\ --gin_param="DATA_DIR=\'/data/my voc\'"',
        'whole/config.gin --model_dir=runs/again --precision=bfloat16 --mode=train_and_eval'.replace(' ', ' \\ '),
    ):  # fmt: skip
        assert part in whole.shown, part


def test_structure_is_accessible(whole):
    levels = [int(tag[1]) for tag, _ in whole.elements if re.fullmatch(r'h\d', tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert dict(whole.of('html')[0])['lang'] == 'en' and whole.of('title')
    assert all(image['alt'] and image['width'] and image['loading'] == 'lazy' for image in whole.of('img'))
    assert all(header['scope'] in ('row', 'col') for header in whole.of('th'))
    drawings = [a['aria-label'] for a in whole.of('div') if a.get('role') == 'img']
    assert len(drawings) == len(whole.of('svg')) == 8
    assert any('Evaluation: first 0.5123 at step 100' in text for text in drawings)
    ids = [a['id'] for _, a in whole.elements if 'id' in a]
    assert len(ids) == len(set(ids))
    for link in whole.of('a'):
        assert link['href'].removeprefix('#') in ids
    for text in ('Step', 'images/s', '% of time', 'GiB', 'norm before clipping', 'learning rate'):
        assert f'>{text}</text>' in whole.source


def outside(found: Page):
    """Everything in a page that a browser would fetch from elsewhere."""
    references = [
        value
        for _, attributes in found.elements
        for name, value in attributes.items()
        if name in ('src', 'href', 'srcset', 'xlink:href', 'data', 'poster', 'action', 'background')
    ]
    references += re.findall(r'url\(([^)]*)\)', found.source)
    return [text for text in references if not text.startswith(('data:', '#'))]


def test_no_external_references(whole):
    assert outside(whole) == [] and '@import' not in whole.source and '://' not in whole.source
    policy = next(a['content'] for a in whole.of('meta') if a.get('http-equiv') == 'Content-Security-Policy')
    assert "default-src 'none'" in policy
    script = whole.source.partition('<script>')[2].partition('</script>')[0]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_colours_of_charts_follow_the_page(whole):
    charts = ''.join(re.findall(r'<svg.*?</svg>', whole.source, re.DOTALL))
    assert not re.search(r'#[0-9a-f]{6}\b', charts) and 'var(--series-0)' in charts and 'font-family' not in charts
    style = whole.source.partition('</style>')[0]
    used = set(re.findall(r'var\((--[\w-]+)', style + charts))
    by_element = {'--color', '--share', '--strip', '--count', '--at', '--ratio'}
    assert used - by_element <= set(re.findall(r'(--[\w-]+):', style))
    assert 'prefers-color-scheme: dark' in whole.source and '@media print' in whole.source


def test_images(whole):
    shown = [image['alt'] for image in whole.of('img')]
    assert shown == [f'{kind} images: {i}' for kind in ('Fixed', 'Worst', 'Best') for i in (1, 2)]
    assert all(image['src'].startswith('data:image/jpeg;base64,/9j/') for image in whole.of('img'))
    assert all((image['width'], image['height']) == ('200', '60') for image in whole.of('img'))


def test_charts_of_the_evaluation_where_the_matrix_is_not_known(no_curves, whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / 'run')
    os.remove(tmp_path / 'run' / 'eval' / 'confusion-val-300.json')
    found = report(tmp_path / 'run')
    assert [image['alt'] for image in found.of('img')][:2] == [
        'Confusion matrix: true classes (rows) and predicted classes (columns).',
        'Pixels of each class.',
    ]
    assert all(image['src'].startswith('data:image/png;base64,') for image in found.of('img')[:2])
    assert 'Precision' not in found.columns()


@pytest.mark.parametrize('pixels', [[[1]], 'x', [[-1] * 3] * 3, [[None] * 3] * 3])
def test_a_matrix_of_other_values_does_not_count(no_curves, tmp_path, pixels):
    made.run(tmp_path)
    made.edit(tmp_path / 'eval' / 'confusion-val-300.json', lambda values: values.update(pixels=pixels))
    found = report(tmp_path).columns()
    assert 'IoU' in found and 'Precision' not in found


HOSTILE = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 191 }}'; </style><b>$\\frac$",
]


def test_names_are_text(tmp_path):
    folder = made.run(tmp_path / '<i>run&', names=HOSTILE)
    made.edit(
        os.path.join(folder, 'run.json'),
        lambda values: values.update(mode=HOSTILE[0], command=HOSTILE, precision=HOSTILE[1], best_metric=HOSTILE[0]),
    )
    with open(os.path.join(folder, 'metrics.jsonl'), 'a') as file:
        file.write(json.dumps({'kind': 'train', 'step': 305, **{f'loss/{name}': 1 for name in HOSTILE}}) + '\n')
        file.write(json.dumps({'kind': 'eval', 'step': 300, **{name: 0.5 for name in HOSTILE}}) + '\n')
    with open(os.path.join(folder, 'config.gin'), 'a') as file:
        file.write('</pre><script>alert(1)</script>')
    made.events(folder, 300, [made.figure(f'fixed/{HOSTILE[1]}'), made.figure(HOSTILE[0])])
    made.edit(
        os.path.join(folder, 'dataset_info.json'), lambda values: values.update(colors=[['0;}</style>', 0, 0]] * 3)
    )
    found = report(folder)
    assert len(found.of('script')) == 1 and len(found.of('style')) == 1 and not outside(found)
    names = {name for _, attributes in found.elements for name in attributes}
    assert not {name for name in names if name.startswith('on')} and 'alert' in found.shown
    assert '<i>run&' in found.shown and '1337' not in found.source
    for name in HOSTILE:
        assert name in found.shown
    assert [tag for tag, _ in found.elements if tag == 'b'] == []


# ---- Runs that are not complete, or no longer ------------------------------------------------------------------------


def lines_of(folder, kind):
    with open(os.path.join(folder, 'metrics.jsonl')) as file:
        return [line for line in file if json.loads(line)['kind'] == kind]


def test_still_training(no_curves, tmp_path):
    folder = made.run(tmp_path, complete=False)
    made.edit(os.path.join(folder, 'run.json'), lambda values: values.update(train_steps=1000))
    assert 'Not complete: step 300 of 1,000 (30 %).' in report(folder).shown
    with locked(RunFolder(folder)):
        found = report(folder)
    assert 'Training now: step 300 of 1,000 (30 %).' in found.shown
    # 300 steps of 8 images, at 20 images per second.
    assert '2 min 00 s' in found.shown and (20.0, '20.0') in found.values
    assert 'at step 200' in found.shown and 'EMA weights' in found.shown


@pytest.mark.parametrize(
    ('higher', 'step'),
    [({}, 200), ({'higher_is_better': True}, 200), ({'higher_is_better': False}, 100)],
)
def test_the_best_step_follows_the_direction_of_its_metric(no_curves, tmp_path, higher, step):
    folder = made.run(tmp_path, complete=False)
    made.edit(os.path.join(folder, 'run.json'), lambda values: values.update(higher))
    assert [(e.label, e.step) for e in page.run_files.read(folder).evaluations()] == [('Last', 300), ('Best', step)]


@pytest.mark.parametrize('record', [True, False])
def test_without_evaluation(tmp_path, record):
    """Also of a run whose run.json does not say that it evaluates nothing, as older ones do not."""
    folder = made.run(tmp_path, complete=False, mode='train')
    if not record:
        values = read_json(os.path.join(folder, 'run.json'), '')
        del values['evaluates']
        write_json(os.path.join(folder, 'run.json'), values)
    lines = lines_of(folder, 'train')
    with open(os.path.join(folder, 'metrics.jsonl'), 'w') as file:
        file.writelines(lines)
    found = report(folder)
    assert 'Complete: 300 steps.' in found.shown and 'not evaluated yet' in found.shown
    assert not found.of('table') and len(found.of('svg')) == 7


def test_before_the_first_step(tmp_path):
    folder = made.run(tmp_path, complete=False)
    os.remove(os.path.join(folder, 'metrics.jsonl'))
    found = report(folder)
    assert 'Not complete: step 0 of 300 (0 %).' in found.shown and not found.of('svg') and 'Z80' in found.shown


def test_evaluations_alone(tmp_path):
    (tmp_path / 'eval').mkdir()
    for split, step in (('val', 300), ('test', 200)):
        (tmp_path / 'eval' / f'{split}-{step}.json').write_text(json.dumps(made.results(step=step)))
    found = report(tmp_path)
    assert 'Step 300.' in found.shown and 'step 300, val' in found.shown and '1 h 12 min' in found.shown
    assert {made.scores()['miou']} <= {value for value, _ in found.values}
    assert ['val', 'test'] == [text for text in map(str.strip, found.text) if text in ('val', 'test')]


def test_evaluations_beside_those_of_the_training(no_curves, tmp_path):
    folder = made.run(tmp_path)
    for step in range(10, 100, 10):
        with open(os.path.join(folder, 'eval', f'a-b-{step}.json'), 'w') as file:
            json.dump(made.results(step=step), file)
    found = report(folder)
    assert sum('a-b' == text.strip() for text in found.text) == 4 and 'not shown: 5' in found.shown
    assert 'step 60' in found.shown and 'step 50' not in found.shown


def test_an_evaluation_with_other_settings_says_which(no_curves, tmp_path):
    folder = made.run(tmp_path)
    values = made.results(step=300) | {'settings': ['tasks.semantic.eval_flip = True', 'a.b = 2']}
    with open(os.path.join(folder, 'eval', 'val-300-12ab3f.json'), 'w') as file:
        json.dump(values, file)
    found = report(folder)
    assert 'val 12ab3f' in [text.strip() for text in found.text]
    assert 'val 12ab3f: evaluated with tasks.semantic.eval_flip = True, a.b = 2.' in found.shown


@pytest.mark.parametrize('kind', ['confusion', 'instances'])
def test_a_run_whose_records_name_no_files(no_curves, tmp_path, kind):
    """As older ones: the report finds the files by their names, and says the same."""
    make = {'confusion': made.run, 'instances': test_instances.run}[kind]
    pages = {}
    for name in ('new', 'old'):
        folder = make(tmp_path / name)
        if name == 'old':
            strip(folder)
        (tmp_path / name).rename(tmp_path / 'run')
        pages[name] = re.sub(r'Made \S+ \S+', '', report(tmp_path / 'run').source)
        (tmp_path / 'run').rename(tmp_path / name)
    assert pages['old'] == pages['new'] and 'EMA weights' in pages['new']
    assert {'confusion': '80.00 %', 'instances': '>Detections'}[kind] in pages['new']


def strip(folder):
    """Takes from the records of a run what older versions did not write."""
    new = ('split', 'weights', 'details')
    path = os.path.join(folder, 'metrics.jsonl')
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    with open(path, 'w') as file:
        for line in lines:
            file.write(json.dumps({key: value for key, value in line.items() if key not in new}) + '\n')
    made.edit(os.path.join(folder, 'results.json'), lambda values: (values.pop('split'), values.pop('details')))


def test_overfit(no_curves, tmp_path):
    folder = made.run(tmp_path / 'shapes' / 'overfit', mode='overfit')
    made.edit(os.path.join(folder, 'run.json'), lambda values: values.update(train_steps=1000))
    found = report(folder)
    assert 'shapes, overfit' in found.shown and 'Complete: 300 steps of at most 1,000.' in found.shown
    assert '--mode=overfit' in found.shown


def test_resumed(no_curves, tmp_path):
    from seg.run.events import Events

    folder = made.run(tmp_path)
    for start in (0, 100, 250):
        Events(os.path.join(folder, 'train'), start).close()
    found = report(folder)
    assert re.search(r'Resumed at step 100 \(.{16}\), step 250 \(.{16}\)', found.shown)
    assert '1 h 12 min in 3 parts' in found.shown


def test_truncated_and_damaged_lines_are_reported(tmp_path):
    folder = made.run(tmp_path)
    with open(os.path.join(folder, 'metrics.jsonl'), 'rb') as file:
        lines = file.readlines()
    lines[3], lines[7] = b'{"kind": "train", "st\n', b'\xff\xfe\x00\n'
    lines += [
        b'[1, 2]\n',
        b'{"kind": "train", "step": NaN}\n',
        b'{"kind": "train", "step": 305, "loss": NaN}\n',
        b'{"ki',
    ]
    with open(os.path.join(folder, 'metrics.jsonl'), 'wb') as file:
        file.writelines(lines)
    with open(os.path.join(folder, 'results.json'), 'w') as file:
        file.write('{"step": 3')
    found = report(folder)
    assert 'Damaged lines of metrics.jsonl, omitted: 5.' in found.shown
    assert 'results.json is damaged, and omitted.' in found.shown and made.scores()['miou'] in dict(found.values)
    assert 'NaN' not in found.shown and 'nan' not in re.findall(r'[a-z]+', ''.join(found.text))


ODD = [None, True, [], {}, 'x', -1, 1.5, 10**400, float('nan'), [[[]]], {'a': {'b': []}}, ['x', None]]


@pytest.mark.parametrize('name', ['run.json', 'results.json', 'dataset_info.json', 'eval/confusion-val-300.json'])
def test_values_of_the_wrong_type_are_ignored(no_curves, tmp_path, name):
    """Each value in turn; the figures that depend on it may be missing, the page may not."""
    folder = made.run(tmp_path)
    path = os.path.join(folder, name)
    with open(path) as file:
        original = json.load(file)
    keys = [(key,) for key in original] + [(key, inner) for key in original for inner in inside(original[key])]
    for i, (key, *rest) in enumerate(keys):
        values = json.loads(json.dumps(original))
        place = values[key] if rest else values
        place[rest[0] if rest else key] = ODD[i % len(ODD)]
        with open(path, 'w') as file:
            json.dump(values, file)
        assert Page(page.render(page.run_files.read(folder)))


def inside(value):
    return value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()


@pytest.mark.parametrize('odd', ODD, ids=repr)
def test_a_file_that_holds_something_else(no_curves, tmp_path, odd):
    folder = made.run(tmp_path)
    for name in ('run.json', 'results.json', 'dataset_info.json', 'eval/confusion-val-300.json', 'eval/val-300.json'):
        with open(os.path.join(folder, name), 'w') as file:
            json.dump(odd, file)
    assert made.scores()['miou'] in dict(report(folder).values)


def test_unreadable_figures_are_reported(no_curves, tmp_path, monkeypatch):
    folder = made.run(tmp_path)
    made.events(folder, 300, [made.figure('fixed/1'), made.photo('fixed/2')])
    whole = page.event_files.StoredFigure.read
    monkeypatch.setattr(
        page.event_files.StoredFigure, 'read', lambda self: whole(self)[: 60 if self.tag == 'fixed/1' else None]
    )
    found = report(folder)
    assert 'The figure fixed/1 cannot be read and is omitted' in found.shown and len(found.of('img')) == 1


def test_twelve_figures_stay_small(no_curves, tmp_path):
    folder = made.run(tmp_path)
    random = np.random.default_rng(0)
    # Worse than photographs: grain everywhere.
    pixels = np.repeat(np.repeat(random.integers(0, 255, (130, 984, 3), np.uint8), 4, 0), 2, 1)
    made.events(
        folder, 300, [made.ImageSummary(f'{k}/{i}', pixels, True) for k in ('fixed', 'worst', 'best') for i in '1234']
    )
    path = page.write(folder)
    assert os.path.getsize(path) < 6e6
    with open(path, encoding='utf-8') as file:
        assert file.read().count('<img') == 12


# ---- The file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['empty', 'nothing'])
def test_no_run(no_curves, tmp_path, name):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match=f'{name}: (no run was made there|there is no such folder)'):
        page.write(str(tmp_path / name))
    assert os.listdir(tmp_path / 'empty') == []


def test_no_run_but_one_inside(tmp_path):
    made.run(tmp_path / 'run' / 'overfit')
    with pytest.raises(UserError, match='There is one in .*run/overfit'):
        page.write(str(tmp_path / 'run'))


def test_output(no_curves, tmp_path):
    folder = made.run(tmp_path / 'run')
    assert page.write(folder) == os.path.join(folder, 'report.html')
    path = page.write(folder, str(tmp_path / 'new' / 'deep' / 'mine.html'))
    assert os.path.getsize(path) > 10_000 and os.listdir(tmp_path / 'new' / 'deep') == ['mine.html']
    with pytest.raises(UserError, match='--output=.*: it is a folder'):
        page.write(folder, str(tmp_path / 'new'))
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='--output=.*cannot write there'):
        page.write(folder, str(tmp_path / 'file' / 'mine.html'))


def test_written_whole_or_not_at_all(no_curves, tmp_path, monkeypatch):
    folder = made.run(tmp_path / 'run')
    with open(os.path.join(folder, 'report.html'), 'w') as file:
        file.write('the report before')
    monkeypatch.setattr(os, 'replace', lambda *args: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(UserError, match='No space left on device'):
        page.write(folder)
    assert [name for name in os.listdir(folder) if 'report' in name] == ['report.html']
    with open(os.path.join(folder, 'report.html')) as file:
        assert file.read() == 'the report before'


def test_a_second_report_is_the_same_but_for_its_time(whole_run):
    first, second = (re.sub(r'Made \S+ \S+', '', report(whole_run).source) for _ in range(2))
    assert first == second


def test_a_plan_is_shown(tmp_path, no_curves):
    row = {'hardware': 'v3-8', 'devices': 8, 'batch': 64, 'learning_rate': 0.08, 'precision': 'bfloat16', 'hours': 5.7}
    made.run(tmp_path)
    assert 'id="plan"' not in report(tmp_path).source
    write_json(tmp_path / 'plan.json', {'train_steps': 22_500, 'prices': {'date': '2026-11'}, 'rows': [row]})
    page_with_plan = report(tmp_path)
    assert {'v3-8', '5.7'} <= set(map(str.strip, page_with_plan.text)) and 'id="plan"' in page_with_plan.source
    assert '2026-11' in page_with_plan.source
    (tmp_path / 'plan.json').write_text('{"rows": 3}')
    assert 'plan.json is damaged' in report(tmp_path).source
