"""A generator and a discriminator, trained together on the handwritten digits of scikit-learn.

`Digits` gives 1,797 images of 8 x 8 pixels, which scikit-learn carries with it; nothing is downloaded.
`DigitsGan` is told a digit and draws it. Both losses come out of one forward pass over one graph; which
gradient belongs to whom is for the two OptimSchedulers of `train.yaml` to sort out.

>>> DigitsGan().generate(torch.tensor([3, 7]), torch.zeros(2, 32)).shape
torch.Size([2, 64])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import Dataset

from optimscheduler.errors import ConfigError

__all__ = ["Digits", "DigitsGan"]

CLASSES, SIDE = 10, 8


class Digits(Dataset[dict[str, Tensor]]):
    """The 8 x 8 images of `sklearn.datasets.load_digits`, pixels from -1 (paper) to 1 (ink).

    Raises:
        ConfigError: scikit-learn is not installed.
    """

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ConfigError(
                "Digits: the images come with scikit-learn, which is not installed: pip install scikit-learn"
            ) from None
        images, digits = load_digits(return_X_y=True)
        self._images = torch.tensor(images, dtype=torch.float32) / 8 - 1
        self._digits = torch.tensor(digits, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._digits)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One image, float32 (64,), and the digit that it shows, int64 ()."""
        return {"image": self._images[index], "digit": self._digits[index]}


class DigitsGan(nn.Module):
    """A conditional GAN of two perceptrons.

    The losses are the hinge losses of Lim and Ye (2017, arXiv:1705.02894), the discriminator's weights are
    normalised (Miyato et al. 2018, arXiv:1802.05957), and it takes the digit in as a projection (Miyato and
    Koyama 2018, arXiv:1802.05637):

        d(x, y) = head(f(x)) + <embedding(y), f(x)>
        discriminator_loss = mean(max(0, 1 - d(real, y))) + mean(max(0, 1 + d(fake, y)))
        generator_loss = -mean(d(fake, y))

    Args:
        width: of the hidden layers.
        noise: length of the random vector behind an image.
    """

    def __init__(self, width: int = 256, noise: int = 32) -> None:
        super().__init__()
        self.noise = noise
        self.generator = nn.Sequential(
            nn.Linear(noise + CLASSES, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, SIDE * SIDE),
            nn.Tanh(),
        )
        self.discriminator = nn.ModuleDict(
            {
                "features": nn.Sequential(
                    spectral_norm(nn.Linear(SIDE * SIDE, width)),
                    nn.LeakyReLU(0.2),
                    spectral_norm(nn.Linear(width, width)),
                    nn.LeakyReLU(0.2),
                ),
                "head": spectral_norm(nn.Linear(width, 1)),
                "digit": spectral_norm(nn.Embedding(CLASSES, width)),
            }
        )

    def generate(self, digits: Tensor, noise: Tensor) -> Tensor:
        """Images of these digits.

        Args:
            digits: int64 (B,), 0 to 9.
            noise: (B, noise), standard normal.

        Returns:
            (B, 64), pixels from -1 to 1.
        """
        wanted = functional.one_hot(digits, CLASSES).to(noise.dtype)
        images: Tensor = self.generator(torch.cat([noise, wanted], dim=1))
        return images

    def judge(self, images: Tensor, digits: Tensor) -> Tensor:
        """How real images (B, 64) look as these digits (B,): scores (B,)."""
        features = self.discriminator["features"](images)
        scores: Tensor = self.discriminator["head"](features)[:, 0]
        fits: Tensor = (self.discriminator["digit"](digits) * features).sum(dim=1)
        return scores + fits

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both losses of a batch, over one graph: nothing is detached.

        Args:
            batch: `{"image": float32 (B, 64), "digit": int64 (B,)}`.

        Returns:
            `"discriminator_loss"` and `"generator_loss"`, 0-d.
        """
        real, digits = batch["image"], batch["digit"]
        noise = torch.randn(len(digits), self.noise, device=real.device, dtype=real.dtype)
        fake = self.generate(digits, noise)
        for_real, for_fake = self.judge(real, digits), self.judge(fake, digits)
        return {
            "discriminator_loss": (1 - for_real).relu().mean() + (1 + for_fake).relu().mean(),
            "generator_loss": -for_fake.mean(),
        }

    @torch.no_grad()
    def draw_sample(self, *, generator: torch.Generator) -> Tensor:
        """Ten images of each digit, a row for each: (98, 98) with margins, from 0 (paper) to 1 (ink)."""
        device = next(self.parameters()).device
        digits = torch.arange(CLASSES).repeat_interleave(CLASSES)
        noise = torch.randn(len(digits), self.noise, generator=generator)
        images = self.generate(digits.to(device), noise.to(device)).cpu()
        tiles = functional.pad(images.view(CLASSES, CLASSES, SIDE, SIDE), (0, 2, 0, 2), value=-1)
        rows = tiles.transpose(1, 2).flatten(0, 1).flatten(1)
        return (rows[:-2, :-2] + 1) / 2
