"""placeholder until merged"""

from typing import Annotated

from vq.core.config import PyConfig
from vq.core.recipe import recipe


@recipe()
def digits_features(given, *, features_run: Annotated[str, 'run'] = 'ic/digits'):
    return dict(
        type='ClassifierFeatures',
        classifier=PyConfig.load_beside('configs/ic/digits.py', {})[0]['trainer']['model'],
        weights=features_run,
        image_size=32,
    )


from typing import Annotated
