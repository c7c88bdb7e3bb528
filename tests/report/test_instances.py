"""The report of a run with instances: AP of boxes and masks, classes, counts."""

import json
import os
import re

import pytest

from seg.report import page
from tests.report import made
from tests.report.pages import Page

NAMES = ['cat', 'dog', 'owl']
AREAS = ('small', 'medium', 'large')


def scores(missing=(), limit=100, factor=1.0):
    """As the metric coco_ap gives them; the area ranges in `missing` have no instance, and the class owl has none."""
    found = {}
    for i, kind in enumerate(('box', 'mask')):
        values = {'ap': 0.41, 'ap50': 0.62, 'ap75': 0.43, 'ar1': 0.21, 'ar10': 0.47, f'ar{limit}': 0.52}
        values |= {f'{score}_{area}': 0.3 + 0.1 * n for score in ('ap', 'ar') for n, area in enumerate(AREAS)}
        values |= {'ap/cat': 0.7, 'ap/dog': 0.12}
        found |= {f'{kind}_{name}': factor * (value + 0.01 * i) for name, value in values.items()}
    found = {name: value for name, value in found.items() if not name.endswith(tuple(missing) or ('nothing',))}
    best = {'precision': 0.8, 'recall': 0.5, 'f1': 0.615385, 'threat_score': 0.444444, 'best_threshold': 0.37}
    return found | best | {'max_detections': limit, 'objects': 40, 'detections': 90}


def details(limit=100):
    rows = [
        {'name': name, 'objects': n, 'crowds': 0, 'detections': 2 * n, 'mask_ap50': 0.5, 'box_ap50': 0.6}
        | {'precision': 0.25 * n, 'recall': None if name == 'owl' else 0.75}
        for n, name in enumerate(NAMES)
    ]
    return {'max_detections': limit, 'best': {'threshold': 0.37, 'f1': 0.615385}, 'classes': rows}


def run(folder, found=None):
    """A complete run of 300 steps, evaluated at 200 (best) and 300."""
    folder, found = made.run(folder), found or scores()
    os.remove(os.path.join(folder, 'eval', 'confusion-val-300.json'))
    made.edit(os.path.join(folder, 'run.json'), lambda values: values.update(best_metric='mask_ap'))
    made.edit(
        os.path.join(folder, 'dataset_info.json'),
        lambda values: (values.update(class_names=NAMES, colors=[]), values.pop('class_histogram')),
    )
    with open(os.path.join(folder, 'metrics.jsonl')) as file:
        lines = [json.loads(line) for line in file]
    with open(os.path.join(folder, 'metrics.jsonl'), 'w') as file:
        for line in lines:
            if line['kind'] == 'train':
                counts = {'anchors_positive': 20, 'anchors_negative': 236, 'rois_positive': 128, 'rois_negative': 384}
                line |= {f'counts/{name}': n for name, n in {**counts, 'objects': 7, 'left_out': 0}.items()}
                line['loss/rpn_score'] = line.pop('loss/dice')
            else:
                line = {key: line[key] for key in ('kind', 'step', 'examples', 'seconds')}
                line |= scores(factor=1.1 if line['step'] == 200 else 1.0) | made.origin('instances', line['step'])
            file.write(json.dumps(line) + '\n')
    made.edit(
        os.path.join(folder, 'results.json'),
        lambda values: values.update(
            metrics=found, **made.origin('instances', 300), best={'step': 200, 'mask_ap': 0.462, 'checkpoint': 'best/x'}
        ),
    )
    with open(os.path.join(folder, 'eval', 'instances-val-300.json'), 'w') as file:
        json.dump(details(), file)
    return folder


def report(folder):
    with open(page.write(str(folder)), encoding='utf-8') as file:
        return Page(file.read())


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs') / 'objects'
    run(folder)
    tags = ('precision_recall', 'class_ap', 'score_histogram')
    photos = [made.photo(f'{kind}/1', 60, 200) for kind in ('worst', 'best', 'fixed')]
    made.events(folder, made.STEPS, [*(made.figure(tag) for tag in tags), *photos])
    return report(folder)


@pytest.fixture
def no_curves(monkeypatch):
    monkeypatch.setattr(page, 'curves', lambda run: [])


def precision(found):
    """The rows of the AP table: cells by name."""
    table = found.source.partition('>Average precision and recall</h3>')[2].partition('</table>')[0]
    rows = re.findall(r'<tr><th scope="row"><span class="name">([^<]*)<small>.*?</tr>', table)
    cells = re.findall(r'<tr><th scope="row">.*?</th>(.*?)</tr>', table)
    return {name: re.findall(r'<td>(?:<data value="([^"]*)">)?', row) for name, row in zip(rows, cells, strict=True)}


def test_all_twelve_figures_of_boxes_and_masks(whole):
    rows = precision(whole)
    assert list(rows) == [
        'AP', 'AP50', 'AP75', 'AP small', 'AP medium', 'AP large',
        'AR 1', 'AR 10', 'AR 100', 'AR small', 'AR medium', 'AR large',
    ]  # fmt: skip
    exact = scores()
    names = ('ap', 'ap50', 'ap75', *(f'ap_{a}' for a in AREAS), 'ar1', 'ar10', 'ar100', *(f'ar_{a}' for a in AREAS))
    for row, name in zip(rows.values(), names, strict=True):
        last, best = ([float(value) for value in row[:2]], [float(value) for value in row[2:]])
        assert last == [exact[f'mask_{name}'], exact[f'box_{name}']]
        assert best == pytest.approx([1.1 * value for value in last])
    assert 'the 100 detections with the highest scores count' in whole.shown
    assert 'without an instance' not in whole.shown
    assert whole.shown.count('0.4200') >= 1 and 'Mask ap small' not in whole.shown


def test_missing_area_ranges_are_explained(no_curves, tmp_path):
    found = report(run(tmp_path, scores(missing=('_large',), limit=300)))
    rows = precision(found)
    assert rows['AP large'][:2] == ['', ''] and rows['AR large'][:2] == ['', ''] and '' not in rows['AP small']
    assert 'AR 300' in rows and 'without an instance: large.' in found.shown
    assert 'the 100 or 300 detections' in found.shown, 'the best evaluation had another limit'


def test_headlines_and_other_scores(whole):
    tiles = re.findall(r'<dt>([^<]*)</dt><dd><data class="value" value="([^"]*)">', whole.source)
    assert dict(tiles[:3]) == {'Mask AP': '0.42', 'Mask AP50': '0.63', 'Box AP': '0.41'}
    assert 'best 0.4620 at step 200' in whole.shown
    for text in ('Threat score', 'Score threshold with the best F1', 'Instances', 'at IoU 0.5'):
        assert text in whole.shown, text
    values = dict(whole.values)
    assert {0.8, 0.5, 0.615385, 0.444444, 0.37} <= set(values) and values[100.0] == '100'


def test_classes(whole):
    table = whole.source.partition('<table class="classes ')[2].partition('</table>')[0]
    heads = re.findall(r'<th scope="col">([^<]*)', table)
    assert heads == [
        'Class', 'Mask AP', 'Box AP', 'Mask AP50', 'Box AP50', 'Precision', 'Recall', 'Instances', 'Detections'
    ]  # fmt: skip
    assert [table.index(f'>{name}</span>') for name in ('cat', 'dog', 'owl')] == sorted(
        table.index(f'>{name}</span>') for name in NAMES
    )
    owl = table.partition('>owl</span>')[2]
    assert re.findall(r'<data value="([^"]*)">', owl) == ['0.5', '0.6', '0.5', '2.0', '4.0'] and owl.count('–') == 3
    assert 'score threshold 0.3700' in whole.shown
    colors = re.findall(r'background: (#\w+)', table)
    assert len(set(colors)) == 3 and '#000000' not in colors


@pytest.mark.parametrize(
    'change',
    [
        lambda values: values.update(classes=[{'name': 'cat'}]),
        lambda values: values.update(classes='x'),
    ],
)
def test_details_of_other_classes_do_not_count(no_curves, tmp_path, change):
    folder = run(tmp_path)
    made.edit(os.path.join(folder, 'eval', 'instances-val-300.json'), change)
    found = report(folder)
    assert 'Box AP' in found.columns() and 'Instances' not in found.columns()
    assert 'score threshold 0' not in found.shown


def test_details_cut_off(no_curves, tmp_path):
    folder = run(tmp_path)
    with open(os.path.join(folder, 'eval', 'instances-val-300.json'), 'w') as file:
        file.write('{"classes": [')
    found = report(folder)
    assert 'Mask AP' in found.columns() and 'eval/instances-val-300.json is damaged, and omitted.' in found.shown


def test_curves(whole):
    titles = re.findall(r'<figure>\s*<h3>([^<]*)</h3>', whole.source)
    assert [title for title in titles if 'per training image' in title] == [
        'Anchors per training image', 'ROIs per training image', 'Counts per training image'
    ]  # fmt: skip
    told = [a['aria-label'] for a in whole.of('div') if a.get('role') == 'img']
    anchors = next(text for text in told if text.startswith('Anchors'))
    assert 'Negative: first 236' in anchors and 'Positive: first 20' in anchors
    (shares,) = (text for text in told if text.startswith('Scores of the evaluation'))
    assert all(f'{name}:' in shares for name in ('Mask AP', 'Box AP50', 'F1', 'Threat score'))
    assert any(text.startswith('Terms of the training loss') and 'rpn_score' in text for text in told)


def test_charts_are_drawn_from_the_details(no_curves, tmp_path):
    folder = run(tmp_path)
    recall = [round(i / 100, 2) for i in range(101)]
    curves = {'recall': recall, 'mask_50': [1 - 0.5 * r for r in recall], 'box_50': recall, 'box_75': ['x'] * 101}
    histogram = {'edges': [0, 0.5, 1.0], 'right': [1, 90], 'wrong': [40, 0]}
    path = os.path.join(folder, 'eval', 'instances-val-300.json')
    made.edit(path, lambda values: values.update(precision_recall=curves, score_histogram=histogram))
    tags = ('precision_recall', 'class_ap', 'score_histogram', 'fixed/1')
    made.events(folder, made.STEPS, [made.figure(tag) for tag in tags])
    found = report(folder)
    hover = {
        json.loads(a['data-hover'])['name']: json.loads(a['data-hover']) for a in found.of('div') if 'data-hover' in a
    }
    assert [image['alt'] for image in found.of('img')] == ['Fixed images: 1'], 'no white bitmaps'
    masks, boxes = hover['Recall']['series']
    assert (masks['label'], masks['at'][50], masks['value'][50]) == ('Masks, IoU 0.5', '0.50', '0.75')
    assert masks['y'][0] < masks['y'][-1] and boxes['y'][0] > boxes['y'][-1], 'the top is 0'
    assert [one['value'] for one in hover['Score']['series']] == [['1', '90'], ['40', '0']]
    assert hover['Score']['series'][0]['at'] == ['0.00 to 0.50', '0.50 to 1.00'] and 'The line at 0.37' in found.shown
    made.edit(path, lambda values: values['score_histogram'].update(right=[1]))
    assert 'True and false positives by score.' in [image['alt'] for image in report(folder).of('img')]


def test_images(whole):
    alts = [image['alt'] for image in whole.of('img')]
    assert alts == [
        'Precision against recall.', 'True and false positives by score.',
        'Fixed images: 1', 'Worst images: 1', 'Best images: 1',
    ]  # fmt: skip
    assert 'Ordered by F1 per image' in whole.shown and 'mIoU' not in whole.shown
