"""Two hundred right models: each is accepted without a word, with the products that torch gives."""

import copy
import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.utils.checkpoint import checkpoint

from skdmap.hessian import EmpiricalRisk

N, D, C = 40, 6, 3
MODELS = {}


def rng(seed=0):
    return np.random.default_rng(seed)


X = rng(0).standard_normal((N, D))
Y = rng(1).integers(0, C, N)
VALUES = rng(2).standard_normal((N, C))
IMAGES = rng(3).standard_normal((24, 2, 8, 8))
SIGNALS = rng(4).standard_normal((24, 2, 12))
VOLUMES = rng(5).standard_normal((8, 1, 5, 5, 5))
SERIES = rng(6).standard_normal((20, 7, 4))
TOKENS = rng(7).integers(1, 11, (24, 6))
PADDED = np.where(np.arange(6) < rng(8).integers(2, 6, (24, 1)), TOKENS, 0)
NORMAL = np.random.default_rng(9)


def add(name, module, criterion=None, X=X, y=Y, **settings):
    """Enter a model: a function that makes the module, with seed 0."""
    assert name not in MODELS, name
    MODELS[name] = module, criterion or nn.CrossEntropyLoss(), X, y, settings


def mlp(*between, out=C, width=8):
    layers = between or (nn.Tanh(),)
    return nn.Sequential(nn.Linear(D, width), *layers, nn.Linear(width, out))


class Lambda(nn.Module):
    """A function of the input and of named submodules and parameters."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


# Activations, in two depths.
ACTIVATIONS = [
    nn.ReLU(), nn.LeakyReLU(0.1), nn.PReLU(), nn.ELU(), nn.SELU(), nn.CELU(), nn.GELU(),
    nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Softplus(), nn.Softsign(), nn.Tanh(), nn.Sigmoid(),
    nn.Hardtanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.LogSigmoid(), nn.Softshrink(),
    nn.Hardshrink(), nn.Tanhshrink(), nn.Threshold(0.1, 0.0), nn.ReLU6(), nn.RReLU(),
    nn.Softmax(dim=1), nn.LogSoftmax(dim=1),
]  # fmt: skip
for activation in ACTIVATIONS:
    kind = type(activation).__name__ + str(getattr(activation, "approximate", ""))
    add(f"{kind} shallow", functools.partial(mlp, activation))
    deep = (activation, nn.Linear(8, 8), activation, nn.Linear(8, 8), activation)
    add(f"{kind} deep", functools.partial(mlp, *deep), nn.MSELoss(), y=VALUES)
add("GLU", lambda: nn.Sequential(nn.Linear(D, 8), nn.GLU(), nn.Linear(4, C)))
add("in-place ReLU", lambda: mlp(nn.ReLU(inplace=True)))

# Criteria.
PROBABILITIES = rng(10).dirichlet(np.ones(C), N)
SIGNS = np.where(VALUES > 0, 1.0, -1.0)
BITS = (VALUES > 0).astype(float)
COUNTS = rng(11).poisson(2.0, (N, C)).astype(float)
WEIGHT = torch.tensor([1.0, 3.0, 0.5])
SOME_IGNORED = np.where(np.arange(N) % 4 == 0, -100, Y)
CRITERIA = {
    "weighted": (nn.CrossEntropyLoss(weight=WEIGHT), Y),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), Y),
    "ignored": (nn.CrossEntropyLoss(), SOME_IGNORED),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), Y),
    "probabilities": (nn.CrossEntropyLoss(), PROBABILITIES),
    "mse": (nn.MSELoss(), VALUES),
    "mse sum": (nn.MSELoss(reduction="sum"), VALUES),
    "l1": (nn.L1Loss(), VALUES),
    "smooth l1": (nn.SmoothL1Loss(), VALUES),
    "huber": (nn.HuberLoss(delta=0.3), VALUES),
    "poisson": (nn.PoissonNLLLoss(), COUNTS),
    "logits": (nn.BCEWithLogitsLoss(), BITS),
    "positive weight": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), BITS),
    "margin": (nn.MultiMarginLoss(), Y),
    "squared margin": (nn.MultiMarginLoss(p=2), Y),
    "soft margin": (nn.SoftMarginLoss(), SIGNS),
    "hinge embedding": (nn.HingeEmbeddingLoss(), SIGNS),
    "many labels": (nn.MultiLabelSoftMarginLoss(), BITS),
    "hinge": (lambda z, y: torch.relu(1 - z * y).mean(), SIGNS),
    "squared hinge": (lambda z, y: torch.relu(1 - z * y).square().mean(), SIGNS),
    "quantile": (lambda z, y: torch.maximum(0.9 * (y - z), 0.1 * (z - y)).mean(), VALUES),
    "log cosh": (lambda z, y: torch.log(torch.cosh(z - y)).mean(), VALUES),
    "focal": (
        lambda z, y: (lambda c: ((1 - torch.exp(-c)) ** 2 * c).mean())(
            F.cross_entropy(z, y, reduction="none")
        ),
        Y,
    ),
    "dice": (lambda z, y: 1 - 2 * (z.sigmoid() * y).sum() / (z.sigmoid() + y).sum(), BITS),
    "contrastive": (
        lambda z, y: F.cross_entropy(
            F.normalize(z) @ F.normalize(z + y).T / 0.5, torch.arange(len(z))
        ),
        VALUES,
    ),
    "cosine": (lambda z, y: (1 - F.cosine_similarity(z, y)).mean(), VALUES),
    "hardest half": (
        lambda z, y: F.cross_entropy(z, y, reduction="none").topk(len(z) // 2).values.mean(),
        Y,
    ),
    "gaussian": (lambda z, y: F.gaussian_nll_loss(z, y, F.softplus(z) + 0.1), VALUES),
    "student": (lambda z, y: torch.log1p((z - y) ** 2).mean(), VALUES),
    "correlation": (
        lambda z, y: 1 - torch.corrcoef(torch.stack([z.ravel(), y.ravel()]))[0, 1],
        VALUES,
    ),
    "masked": (lambda z, y: (z - y)[y > 0].square().mean(), VALUES),
    "constant": (lambda z, y: 0.0 * z.sum() + 3.0, Y),
    "linear": (lambda z, y: z.sum(), Y),
    "huge": (lambda z, y: 1e12 * F.cross_entropy(z, y), Y),
    "tiny": (lambda z, y: 1e-12 * F.cross_entropy(z, y), Y),
    "offset": (lambda z, y: 1e6 + F.cross_entropy(z, y), Y),
}
for kind, (criterion, targets) in CRITERIA.items():
    add(f"criterion {kind}", mlp, criterion, y=targets)
    if kind in ("l1", "hinge", "margin", "quantile", "hardest half", "huber", "masked"):
        add(f"criterion {kind}, linear", lambda: nn.Linear(D, C), criterion, y=targets)
        add(f"criterion {kind}, ReLU", lambda: mlp(nn.ReLU()), criterion, y=targets)
add("kl divergence", lambda: mlp(nn.Tanh()).append(nn.LogSoftmax(1)),
    nn.KLDivLoss(reduction="batchmean"), y=PROBABILITIES)  # fmt: skip
add("nll", lambda: mlp(nn.Tanh()).append(nn.LogSoftmax(1)), nn.NLLLoss(weight=WEIGHT))
add("bce", lambda: mlp(nn.Tanh()).append(nn.Sigmoid()), nn.BCELoss(), y=BITS)
add("output alone", mlp, lambda z: z.logsumexp(1).mean(), y=None)
add("class weights in batches", mlp, nn.CrossEntropyLoss(weight=WEIGHT), batch_size=7)
add("weight decay", mlp, weight_decay=0.1)
add("some parameters", mlp, parameters="2.*")
add("boolean targets", lambda: nn.Sequential(mlp(out=1), nn.Flatten(0)),
    lambda z, y: F.softplus(z[~y]).mean() + F.softplus(-z[y]).mean(), y=Y > 0)  # fmt: skip

# Points that are special: zeros, dead units, kinks, scales.


def scaled(module, factor):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(factor)
    return module


def dead(module):
    nn.init.constant_(module[0].bias, -100.0)
    return module


def zero_last(module):
    nn.init.zeros_(module[-1].weight)
    nn.init.zeros_(module[-1].bias)
    return module


def zero_biases(module):
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return module


for factor in (1e-6, 1e-3, 1e2, 1e6):
    add(f"ReLU times {factor:g}", functools.partial(lambda f: scaled(mlp(nn.ReLU()), f), factor),
        nn.MSELoss(), y=VALUES)  # fmt: skip
    add(f"Tanh times {factor:g}", functools.partial(lambda f: scaled(mlp(nn.Tanh()), f), factor))
add("dead units", lambda: dead(mlp(nn.ReLU())))
add("all zero", lambda: scaled(mlp(nn.Tanh()), 0.0))
add("all zero, ReLU", lambda: scaled(mlp(nn.ReLU()), 0.0))
add("last layer zero", lambda: zero_last(mlp(nn.ReLU())))
add("samples of zeros, ReLU at its kink", lambda: zero_biases(mlp(nn.ReLU())),
    X=np.where(np.arange(N)[:, None] < 10, 0.0, X))  # fmt: skip
add("all samples zero", lambda: zero_biases(mlp(nn.ReLU())), X=np.zeros((N, D)))
add("equal samples", lambda: mlp(nn.ReLU()), X=np.ones((N, D)))
add("one sample", lambda: mlp(nn.ReLU()), X=X[:1], y=Y[:1])
add("two samples", lambda: mlp(nn.GELU()), X=X[:2], y=Y[:2])
add("many samples", lambda: mlp(nn.ReLU()), X=rng(12).standard_normal((3000, D)),
    y=rng(13).integers(0, C, 3000))  # fmt: skip
add("huge inputs", lambda: mlp(nn.ReLU()), nn.MSELoss(), X=1e8 * X, y=VALUES)
add("tiny inputs", lambda: mlp(nn.Tanh()), X=1e-8 * X)
add("regression at its minimum", lambda: scaled(nn.Linear(D, 1), 0.0), nn.MSELoss(),
    y=np.zeros((N, 1)))  # fmt: skip
add("wide ReLU", lambda: mlp(nn.ReLU(), width=512))
add("twenty linear layers",
    lambda: nn.Sequential(*(nn.Linear(D, D) for _ in range(20)), nn.Linear(D, C)))  # fmt: skip
add(
    "twenty ReLU layers",
    lambda: nn.Sequential(
        *(layer for _ in range(20) for layer in (nn.Linear(D, D), nn.ReLU())), nn.Linear(D, C)
    ),
)
add(
    "embedding of max norm",
    lambda: nn.Sequential(nn.Embedding(11, 4, max_norm=0.5), nn.Flatten(), nn.Linear(24, C)),
    X=TOKENS,
    y=Y[:24],
)

# Convolutions and pooling.


def image_net(*middle, channels=4):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(channels, C),
    )  # fmt: skip


IMAGE_LAYERS = {
    "max-pool": (nn.ReLU(), nn.MaxPool2d(2)),
    "overlapping max-pool": (nn.MaxPool2d(3, stride=1), nn.ReLU()),
    "average pool": (nn.GELU(), nn.AvgPool2d(2)),
    "lp-pool": (nn.Softplus(), nn.LPPool2d(2, 2)),
    "adaptive max-pool": (nn.ReLU(), nn.AdaptiveMaxPool2d(3)),
    "group norm": (nn.GroupNorm(2, 4), nn.ReLU()),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), nn.ReLU()),
    "layer norm": (nn.LayerNorm([4, 8, 8]), nn.ReLU()),
    "local response": (nn.LocalResponseNorm(2), nn.ReLU()),
    "batch norm": (nn.BatchNorm2d(4), nn.ReLU()),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), nn.SiLU()),
    "dilated": (nn.Conv2d(4, 4, 3, dilation=2), nn.ReLU()),
    "transposed": (nn.ConvTranspose2d(4, 4, 2, stride=2), nn.ReLU()),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU()),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), nn.ReLU()),
    "nearest": (nn.Upsample(scale_factor=2), nn.ReLU()),
    "pixel shuffle": (nn.Conv2d(4, 16, 1), nn.PixelShuffle(2), nn.ReLU()),
    "reflection padding": (nn.ReflectionPad2d(1), nn.Conv2d(4, 4, 3), nn.ReLU()),
    "unfold": (nn.Unfold(2), nn.Unflatten(2, (7, 7)), nn.Conv2d(16, 4, 1), nn.ReLU()),
}
for kind, layers in IMAGE_LAYERS.items():
    add(f"images, {kind}", functools.partial(image_net, *layers), X=IMAGES, y=Y[:24])
for mode in ("recalibrate", "train"):
    add(f"images, batch norm, {mode}", lambda: image_net(nn.BatchNorm2d(4), nn.ReLU()),
        X=IMAGES, y=Y[:24], mode=mode)  # fmt: skip
add("dropout, train", lambda: mlp(nn.Tanh(), nn.Dropout(0.5)), mode="train")
add("batch norm and dropout, train",
    lambda: mlp(nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3)), mode="train")  # fmt: skip
add("sparse images, zero biases",
    lambda: zero_biases(image_net(nn.ReLU(), nn.MaxPool2d(2), nn.ReLU())),
    X=np.where(rng(14).random(IMAGES.shape) < 0.9, 0.0, IMAGES), y=Y[:24])  # fmt: skip
add("signals", lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(),
                                     nn.Linear(20, C)), X=SIGNALS, y=Y[:24])  # fmt: skip
add("volumes", lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(),
                                     nn.Linear(16, C)), X=VOLUMES, y=Y[:8])  # fmt: skip


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = (
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.norm(self.a(x)))))


add("residual network", lambda: image_net(Block(4), nn.MaxPool2d(2), Block(4)), X=IMAGES, y=Y[:24])
add("larger residual network", lambda: nn.Sequential(
    nn.Conv2d(2, 16, 3, padding=1), Block(16), Block(16), Block(16), nn.AdaptiveMaxPool2d(2),
    nn.Flatten(), nn.Linear(64, C)), X=IMAGES, y=Y[:24])  # fmt: skip

# Recurrent layers.


def recurrent(kind, **settings):
    width = 5 * (1 + bool(settings.get("bidirectional")))
    return Lambda(
        lambda self, x: self.head(self.body(x)[0][:, -1]),
        body=kind(4, 5, batch_first=True, **settings),
        head=nn.Linear(width, C),
    )


for kind in (nn.RNN, nn.GRU, nn.LSTM):
    for label, settings in {
        "": {}, "two layers": {"num_layers": 2}, "bidirectional": {"bidirectional": True},
    }.items():  # fmt: skip
        add(f"{kind.__name__} {label}", functools.partial(recurrent, kind, **settings),
            X=SERIES, y=Y[:20])  # fmt: skip
add("RNN of ReLU", functools.partial(recurrent, nn.RNN, nonlinearity="relu"), X=SERIES, y=Y[:20])


def unrolled(self, x):
    h = x.new_zeros(len(x), 5)
    for t in range(x.shape[1]):
        h = self.cell(x[:, t], h)
    return self.head(h)


for kind in (nn.RNNCell, nn.GRUCell):
    add(
        f"{kind.__name__} unrolled",
        functools.partial(lambda k: Lambda(unrolled, cell=k(4, 5), head=nn.Linear(5, C)), kind),
        X=SERIES,
        y=Y[:20],
    )

# Attention.


def encoder(**settings):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **settings)
    return Lambda(
        lambda self, x: self.head(self.body(self.embed(x), src_key_padding_mask=x == 0).mean(1)),
        embed=nn.Embedding(11, 8),
        body=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        head=nn.Linear(8, C),
    )


for tokens in ("full", "padded"):
    for label, settings in {
        "": {}, "norm first": {"norm_first": True}, "gelu": {"activation": "gelu"},
    }.items():  # fmt: skip
        add(f"encoder {label}, {tokens}", functools.partial(encoder, **settings),
            X=TOKENS if tokens == "full" else PADDED, y=Y[:24])  # fmt: skip
add("encoder, its head", encoder, X=PADDED, y=Y[:24], parameters="head.*")
add("attention", lambda: Lambda(
    lambda self, x: self.head(self.body(x, x, x)[0].mean(1)),
    body=nn.MultiheadAttention(4, 2, batch_first=True), head=nn.Linear(4, C)),
    X=SERIES, y=Y[:20])  # fmt: skip
add("causal attention", lambda: Lambda(
    lambda self, x: self.head(F.scaled_dot_product_attention(
        *self.body(x).chunk(3, dim=2), is_causal=True).mean(1)),
    body=nn.Linear(4, 12), head=nn.Linear(4, C)), X=SERIES, y=Y[:20])  # fmt: skip
add("decoder", lambda: Lambda(
    lambda self, x: self.head(self.body(x, x).mean(1)),
    body=nn.TransformerDecoderLayer(4, 2, 8, dropout=0.0, batch_first=True), head=nn.Linear(4, C)),
    X=SERIES, y=Y[:20])  # fmt: skip
add("next tokens", lambda: Lambda(
    lambda self, x: self.embed(torch.tanh(self.body(F.one_hot(x, 11).to(self.body.weight)))),
    embed=nn.Linear(8, 11), body=nn.Linear(11, 8)),
    lambda z, y: F.cross_entropy(z[:, :-1].flatten(0, 1), y[:, 1:].flatten()),
    X=TOKENS, y=TOKENS)  # fmt: skip
add("sparse embedding", lambda: nn.Sequential(
    nn.Embedding(11, 4, sparse=True), nn.Flatten(), nn.Tanh(), nn.Linear(24, C)),
    X=TOKENS, y=Y[:24])  # fmt: skip
add("padding index", lambda: nn.Sequential(
    nn.Embedding(11, 4, padding_idx=0), nn.Flatten(), nn.ReLU(), nn.Linear(24, C)),
    X=PADDED, y=Y[:24])  # fmt: skip

# Normalisation and weights that are computed.
for kind in (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d):
    add(f"{kind.__name__} after a layer", functools.partial(
        lambda k: mlp(k(8), nn.ReLU()), kind))  # fmt: skip
add("weight norm", lambda: nn.Sequential(
    parametrizations.weight_norm(nn.Linear(D, 8)), nn.Tanh(), nn.Linear(8, C)))  # fmt: skip
add("spectral norm", lambda: nn.Sequential(
    parametrizations.spectral_norm(nn.Linear(D, 8)), nn.Tanh(), nn.Linear(8, C)))  # fmt: skip
add("orthogonal", lambda: nn.Sequential(
    parametrizations.orthogonal(nn.Linear(D, D)), nn.Tanh(), nn.Linear(D, C)))  # fmt: skip


def pruned():
    module = mlp(nn.ReLU())
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    return module


add("pruned", pruned)


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(weight_norm(nn.Linear(D, 8)), nn.Tanh(), nn.Linear(8, C))


add("old weight norm", old_weight_norm)


def tied(self, x):
    h = torch.tanh(self.body(x))
    return h @ self.body.weight @ self.head.weight.T


add("tied weights", lambda: Lambda(tied, body=nn.Linear(D, 5), head=nn.Linear(D, C)))

# Of the sciences.


def residual(self, z):
    z = z.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(self.u(z).sum(), z, create_graph=True)
    (bend,) = torch.autograd.grad(slope[:, 0].sum(), z, create_graph=True)
    return slope[:, 1] - bend[:, 0]


add("residual of the heat equation", lambda: Lambda(
    residual, u=nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, 1))), nn.MSELoss(),
    y=np.zeros(N))  # fmt: skip
add("forces by torch.func", lambda: Lambda(
    lambda self, x: -vmap(grad(lambda q: self.u(q)[0]))(x),
    u=nn.Sequential(nn.Linear(D, 8), nn.Softplus(), nn.Linear(8, 1))), nn.MSELoss(),
    y=rng(15).standard_normal((N, D)))  # fmt: skip
add("jacobians by torch.func", lambda: Lambda(
    lambda self, x: vmap(jacrev(self.u))(x).sum(-1),
    u=nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, C))))  # fmt: skip
add("checkpointed", lambda: Lambda(
    lambda self, x: self.c(checkpoint(
        lambda h: torch.tanh(self.b(torch.tanh(h))), self.a(x), use_reentrant=False)),
    a=nn.Linear(D, 5), b=nn.Linear(5, 5), c=nn.Linear(5, C)))  # fmt: skip
add("sines", lambda: Lambda(lambda self, x: self.b(torch.sin(30 * self.a(x))),
                            a=nn.Linear(D, 8), b=nn.Linear(8, C)))  # fmt: skip
add("Fourier layer", lambda: Lambda(
    lambda self, x: self.b(torch.fft.irfft(torch.fft.rfft(x) * self.a(x[:, :4]), n=D)),
    a=nn.Linear(4, 4), b=nn.Linear(D, C)))  # fmt: skip
add("complex layer", lambda: Lambda(
    lambda self, x: self.b((torch.complex(x, x.flip(1)) * (1 + 1j)).abs() * torch.sigmoid(x)),
    b=nn.Linear(D, C)))  # fmt: skip
add("Cholesky", lambda: Lambda(
    lambda self, x: torch.linalg.cholesky(
        self.a.weight @ self.a.weight.T + torch.eye(3).to(x)).sum() * x[:, :C],
    a=nn.Linear(3, 3)))  # fmt: skip
add("log determinant", lambda: Lambda(
    lambda self, x: self.a(x)[:, :C] + torch.logdet(
        self.a.weight @ self.a.weight.T + torch.eye(D).to(x)),
    a=nn.Linear(D, D)), nn.MSELoss(), y=VALUES)  # fmt: skip
add("singular values", lambda: Lambda(
    lambda self, x: self.a(x)[:, :C] * torch.linalg.svdvals(self.a.weight).sum(),
    a=nn.Linear(D, D)))  # fmt: skip
add(
    "matrix exponential",
    lambda: Lambda(
        lambda self, x: (x @ torch.linalg.matrix_exp(self.a.weight))[:, :C], a=nn.Linear(D, D)
    ),
)
add("Euler steps", lambda: Lambda(
    lambda self, x: self.b(functools.reduce(
        lambda h, _: h + 0.1 * torch.tanh(self.a(h)), range(10), x)),
    a=nn.Linear(D, D), b=nn.Linear(D, C)))  # fmt: skip
add("fixed point", lambda: Lambda(
    lambda self, x: self.b(functools.reduce(
        lambda h, _: torch.tanh(0.5 * self.a(h) + x), range(15), torch.zeros_like(x))),
    a=nn.Linear(D, D), b=nn.Linear(D, C)))  # fmt: skip
add("coupling layer", lambda: Lambda(
    lambda self, x: (lambda s, t: torch.cat([x[:, :3], x[:, 3:] * torch.exp(s) + t], 1))(
        *torch.tanh(self.a(x[:, :3])).chunk(2, 1)), a=nn.Linear(3, 6)),
    lambda z: z.square().mean(), y=None)  # fmt: skip
add("mixture density", lambda: nn.Linear(D, 6),
    lambda z, y: -torch.logsumexp(
        z[:, :2].log_softmax(1) - 0.5 * ((y[:, :1] - z[:, 2:4]) / F.softplus(z[:, 4:])) ** 2
        - torch.log(F.softplus(z[:, 4:])), 1).mean(), y=VALUES)  # fmt: skip
add("radial basis functions", lambda: Lambda(
    lambda self, x: self.b(torch.exp(-torch.cdist(x, self.a.weight) ** 2)),
    a=nn.Linear(D, 5), b=nn.Linear(5, C)))  # fmt: skip
add("experts, the best one", lambda: Lambda(
    lambda self, x: self.b(x) * self.a(x).softmax(1).max(1).values[:, None],
    a=nn.Linear(D, 4), b=nn.Linear(D, C)))  # fmt: skip
add("two best experts", lambda: Lambda(
    lambda self, x: torch.einsum(
        "nk,nkc->nc", *(lambda top: (top.values.softmax(1), torch.stack(
            [e(x) for e in self.experts], 1).gather(1, top.indices[..., None].expand(-1, -1, C))))(
            self.a(x).topk(2, dim=1))),
    a=nn.Linear(D, 4), experts=nn.ModuleList(nn.Linear(D, C) for _ in range(4))))  # fmt: skip
add("hypernetwork", lambda: Lambda(
    lambda self, x: torch.einsum("nd,ndc->nc", x, torch.tanh(self.a(x)).view(-1, D, C)),
    a=nn.Linear(D, D * C)))  # fmt: skip
add("bilinear layer", lambda: Lambda(lambda self, x: self.a(x, x), a=nn.Bilinear(D, D, C)))
add("median", lambda: Lambda(
    lambda self, x: self.b(self.a(x).sort(1).values[:, 2:5]), a=nn.Linear(D, 7),
    b=nn.Linear(3, C)))  # fmt: skip
add(
    "clamped",
    lambda: Lambda(
        lambda self, x: self.b(self.a(x).clamp(-0.5, 0.5)), a=nn.Linear(D, 7), b=nn.Linear(7, C)
    ),
)
add("cumulative sums", lambda: Lambda(
    lambda self, x: self.b(self.a(x).cumsum(1).logcumsumexp(1)), a=nn.Linear(D, 7),
    b=nn.Linear(7, C)))  # fmt: skip
add("unused parameters", lambda: Lambda(
    lambda self, x: self.a(x), a=nn.Linear(D, C), spare=nn.Linear(50, 50)))  # fmt: skip


def frozen():
    module = mlp(nn.ReLU())
    module[0].requires_grad_(False)
    return module


add("frozen layer", frozen)


class Graph(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.register_buffer("A", torch.from_numpy(rng(16).random((n, n)) / n))
        self.a, self.b = nn.Linear(D, 6), nn.Linear(6, C)

    def forward(self, x):
        return self.b(self.A @ torch.relu(self.a(self.A @ x)))


add("graph of few nodes", lambda: Graph(N))
add("graph of many nodes", lambda: Graph(150), X=rng(17).standard_normal((150, D)),
    y=rng(18).integers(0, C, 150))  # fmt: skip


def counting(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    self.kept = self.a(x)
    return self.kept / self.calls


add("counts its calls", lambda: Lambda(counting, a=nn.Linear(D, C)))
add("float32 inside", lambda: Lambda(
    lambda self, x: self.b(F.softmax(self.a(x), dim=1, dtype=torch.float32).to(x)),
    a=nn.Linear(D, 6), b=nn.Linear(6, C)))  # fmt: skip


def right_product(module, criterion, X, y, theta, v, names):
    """The second derivative by torch, in the dtype of the module, all samples at once."""
    parameters = dict(module.named_parameters())
    dtype = next(iter(parameters.values())).dtype
    given = [torch.as_tensor(part) for part in (X, y) if part is not None]
    given = [part.to(dtype) if part.is_floating_point() else part for part in given]
    leaf = torch.as_tensor(theta).to(dtype).requires_grad_(True)
    parts = leaf.split([parameters[name].numel() for name in names])
    state = {name: part.view_as(parameters[name]) for name, part in zip(names, parts, strict=True)}
    if isinstance(criterion, nn.Module):
        criterion = copy.deepcopy(criterion).to(dtype)
    with sdpa_kernel(SDPBackend.MATH):
        value = criterion(functional_call(module, state, (given[0],)), *given[1:])
        (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
    if not slope.requires_grad:
        return np.zeros(len(leaf))
    (product,) = torch.autograd.grad(
        slope, leaf, torch.as_tensor(v).to(dtype), materialize_grads=True
    )
    return product.numpy()


# Where torch itself is no reference: it cannot copy, is wrong, or needs the settings of the risk.
NO_REFERENCE = (
    "weight norm", "old weight norm", "sparse embedding", "encoder, its head", "counts its calls",
    "margin", "train", "recalibrate", "weight decay", "float32 inside", "Hardsigmoid", "max norm",
)  # fmt: skip
DEFAULT = list(MODELS)[:: max(1, len(MODELS) // 20)]


def test_there_are_two_hundred_of_them():
    assert len(MODELS) >= 200


@pytest.mark.parametrize(
    "name",
    [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
)
def test_a_right_model_is_accepted_with_the_products_of_torch(name):
    make, criterion, X, y, settings = MODELS[name]
    dtypes = (torch.float32, torch.float64)
    for dtype in dtypes if name != "graph of few nodes" else dtypes[1:]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = make().to(dtype)
        risk = EmpiricalRisk(module, criterion, X, y, **settings)
        theta = risk.snapshot()[0]
        v = np.random.default_rng(0).standard_normal(len(theta))
        found = risk.hvp(theta, v)
        assert np.isfinite(found).all()
        if any(part in name for part in NO_REFERENCE) or dtype == torch.float32:
            continue
        names = risk.parameter_layout.names
        expected = right_product(module.eval(), criterion, X, y, theta, v, names)
        size = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=1e-7 * size + 1e-300)
