"""Networks of the ZipMo part at a size at which tests are quick, and clips for them: 16-pixel frames, a 4 x 4 grid."""

import torch

from kinelib.learning.text import Text
from kinelib.tracks.scenes import sample_scenes
from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder
from kinelib.zipmo.autoregressive import AutoregressiveConfig, AutoregressiveModel
from kinelib.zipmo.data import as_clips
from kinelib.zipmo.direct import DirectConfig, DirectFlowMatcher
from kinelib.zipmo.flow_matcher import FlowMatcher, FlowMatcherConfig
from kinelib.zipmo.regression import Regression, RegressionConfig
from kinelib.zipmo.video_model import VideoConfig, VideoFlowMatcher

AUTOENCODER = AutoencoderConfig(
    grid=(4, 4), channels=8, frame_size=16, width=32, heads=2, encoder_depth=1, decoder_depth=1, basis_size=8
)
SIZES = dict(frame_size=16, width=32, image_width=16, depth=2, heads=2)
LATENT = (1, 4, 4, 8)
TEXT = 12  # channels of a sentence's tokens
PLANNER = FlowMatcherConfig(latent_shape=LATENT, max_pokes=16, text_width=TEXT, **SIZES)


def autoencoder(config=AUTOENCODER, seed=0, noise=0.0):
    """An untrained autoencoder; `noise` disturbs its weights, so that no part of it is silent."""
    torch.manual_seed(seed)
    return disturbed(TrackAutoencoder(config), noise)


def planner(config=PLANNER, seed=0, noise=0.1):
    """A flow matcher with disturbed weights, so that time and conditions matter."""
    torch.manual_seed(seed)
    return disturbed(FlowMatcher(config), noise)


def regression():
    """A regression of the planner's size."""
    torch.manual_seed(0)
    return disturbed(Regression(RegressionConfig(latent_shape=LATENT, max_pokes=16, **SIZES)), 0.1)


def direct():
    """A direct flow matcher of the planner's size."""
    torch.manual_seed(0)
    return disturbed(DirectFlowMatcher(DirectConfig(**SIZES)), 0.1)


def autoregressive():
    """An autoregressive model of the planner's size."""
    torch.manual_seed(0)
    return disturbed(AutoregressiveModel(AutoregressiveConfig(**SIZES)), 0.02)


def video():
    """A video model of 8 frames."""
    torch.manual_seed(0)
    sizes = dict(num_frames=8, frame_size=16, span=2, patch=4, width=32, depth=1, heads=2)
    return disturbed(VideoFlowMatcher(VideoConfig(**sizes)), 0.02)


def disturbed(model, noise):
    """The model in eval mode, every weight moved by a normal draw times `noise`."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn_like(weight)
    return model.eval().requires_grad_(False)


def scenes(count, seed=0, size=16, **options):
    """Held-out-like clips of procedural scenes."""
    drawn = sample_scenes(count, seed, size=size, **options)
    return as_clips(drawn.first_frame, drawn.tracks.xy, size)


def frames(count=2, seed=0):
    """(B, 3, 16, 16) random pictures."""
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def starts(batch, points, seed=0):
    """(B, N, 2) random points."""
    return torch.rand(batch, points, 2, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def pokes(batch=2, count=3, seed=0):
    """Random pokes (B, P, 5) and a full mask."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(batch, count, 4, generator=generator) * 1.6 - 0.8
    times = torch.rand(batch, count, 1, generator=generator) * 0.8 + 0.2
    return torch.cat([places, times], dim=-1), torch.ones(batch, count, dtype=torch.bool)


def text(batch=2, length=4, seed=0):
    """Random sentences; the last token of the first clip is padding."""
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[0, -1] = False
    return Text(torch.randn(batch, length, TEXT, generator=torch.Generator().manual_seed(seed)), mask)
