"""The classes of published data sets."""

VOC_CLASS_NAMES = tuple(
    'background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person '
    'pottedplant sheep sofa train tvmonitor'.split()
)
CAMVID_CLASS_NAMES = tuple('sky building pole road pavement tree signsymbol fence car pedestrian bicyclist'.split())
# The categories of COCO by their ids, which have gaps.
COCO_CLASSES = dict(
    zip(
        (id for id in range(1, 91) if id not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)),
        (
            'person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, '
            'stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, '
            'backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball '
            'bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, '
            'spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, '
            'couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, '
            'microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, '
            'toothbrush'
        ).split(', '),
        strict=True,
    )
)
