"""The papers that experiments reproduce: claims, published figures, and what of our runs is held against them.

An entry is an experiment's name and a `Reproduction`. It counts from the moment that experiments/NAME.py exists. Its
comparisons read a record: a row per run, with the fields in which runs differ, those of `reproductions.FOUND`, and the
measures of its last evaluation that the entry names.
"""

from pathlib import Path
from typing import NamedTuple

from studies.comparisons import Arm, Comparison, all_grok, differ, groks_at, happens_more, higher, holds, meets, sooner

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


class Figure(NamedTuple):
    """One figure of a paper, and the same of ours.

    Attributes:
      what: is compared.
      published: the paper's figure, and where it is printed; "no figure" where the claim has none.
      compare: from a record to what it shows.
      only_full: whether the small setting has nothing to be held against it, such as a number of steps.
    """

    what: str
    published: str
    compare: Comparison
    only_full: bool = False


class Reproduction(NamedTuple):
    """What an experiment reproduces.

    Attributes:
      paper: authors, year and number.
      claim: in a sentence of ours.
      full: how the full setting differs from the paper's.
      figures: what is compared.
      measures: columns of metrics that these read, of each run's last evaluation.
    """

    paper: str
    claim: str
    full: str
    figures: tuple[Figure, ...]
    measures: tuple[str, ...] = ()

    def of(self, setting: str) -> list[Figure]:
        """The figures that a setting, "small" or "full", is held against."""
        return [figure for figure in self.figures if setting == "full" or not figure.only_full]


def found() -> dict[str, Reproduction]:
    """The entries whose experiments exist."""
    return {name: entry for name, entry in ENTRIES.items() if (EXPERIMENTS / f"{name}.py").is_file()}


def at_decay(value: float) -> Arm:
    """The runs at a weight decay."""
    return Arm(f"λ = {value:g}", f"weight_decay == {value}")


MLP = "`model.architecture` == 'mlp'"
NO_DECAY = "weight_decay == 0"
DECAY = Arm("decay", "weight_decay > 0")
SOFTMAX = Arm("softmax in float32 and float16", "loss in ('cross_entropy_float32', 'cross_entropy_float16')")
EXACT = Arm("exact loss", f"loss == 'cross_entropy' and gradient_transform == 'none' and {NO_DECAY}")
FLOAT16 = Arm("float16", "loss == 'cross_entropy_float16'")
PIZZA = "gradient_symmetricity > 0.98 and distance_irrelevance < 0.6"
UNIFORM = Arm("α ≤ 0.1", "`model.attention_rate` <= 0.1")
ATTENTION = Arm("α ≥ 0.9", "`model.attention_rate` >= 0.9")
NOISY = "0 < label_noise <= 0.2 and train_fraction == train_fraction.max()"
FORGETS = Arm("largest decay", f"weight_decay == weight_decay.max() and {NOISY}")
KEEPS = Arm("no decay", f"weight_decay == 0 and {NOISY}")
LARGEST = "init_scale == init_scale.max()"
HELD = f"norm_constraint == 'init' and {NO_DECAY} and 0.8 <= init_scale <= 1"

ENTRIES = {
    "power": Reproduction(
        "Power et al. 2022, arXiv 2201.02177",
        "Generalisation comes long after memorisation, and weight decay brings it forward.",
        "without LayerNorm and dropout",
        (
            Figure(
                "decay against none",
                "decay helps most of what was tried (§3.3); no step is printed",
                sooner(DECAY, Arm("no decay", NO_DECAY)),
            ),
            Figure(
                "every run memorises",
                "before step 1,000, and generalises near step 1,000,000 without decay (Figure 1)",
                holds(Arm("all"), "memorise by step 1,000", "memorised_by <= 1000"),
            ),
        ),
    ),
    "wd_sweep": Reproduction(
        "Nanda et al. 2023, arXiv 2301.05217",
        "The more weight decay, the sooner a run groks, and none does without.",
        "",
        (
            Figure(
                "any decay against none",
                "λ = 0 never groks (App. D.1)",
                happens_more("grokked_by", DECAY, Arm("λ = 0", NO_DECAY)),
            ),
            Figure("step to grok at λ = 0.3", "about 3,000 (App. D.1)", groks_at(at_decay(0.3), 3_000, 3_000), True),
            Figure("step to grok at λ = 1", "5,000 to 10,000 (App. D.1)", groks_at(at_decay(1), 5_000, 10_000), True),
            Figure("step to grok at λ = 3", "about 20,000 (App. D.1)", groks_at(at_decay(3), 20_000, 20_000), True),
            Figure(
                "the largest λ against the smallest above 0",
                "more decay, sooner: so the sentence beside these steps (App. D.1)",
                sooner(
                    Arm("largest", "weight_decay == weight_decay.max()"),
                    Arm("smallest", "weight_decay == weight_decay[weight_decay > 0].min()"),
                ),
            ),
        ),
    ),
    "groups": Reproduction(
        "Chughtai et al. 2023, arXiv 2302.03025",
        "Networks learn to compose in a group by a few of its irreducible representations, and seeds choose others.",
        "",
        (
            Figure("MLPs grok", "all four released models of each group", all_grok(Arm("MLPs", MLP))),
            *(
                Figure(
                    f"MLPs on {group}, step to grok",
                    f"{low:,} to {high:,} in the released models",
                    groks_at(Arm(group, f"{MLP} and group == '{group}'"), low, high),
                    True,
                )
                for group, low, high in (("S_5", 94_000, 162_000), ("A_5", 17_000, 40_000), ("D_59", 16_000, 26_000))
            ),
            Figure(
                "seeds choose other key blocks", "different ones (§5)", differ("keys", ("group", "model.architecture"))
            ),
        ),
    ),
    "multiplication": Reproduction(
        "arXiv 2606.17399",
        "A network multiplies by few frequencies of the discrete logarithm; by those of the residue it is spread out.",
        "",
        (
            Figure(
                "the embedding's Gini coefficient in either basis",
                "0.58 by the logarithm, 0.07 by the residue",
                holds(
                    Arm("all"),
                    "above 0.5 by the logarithm and below 0.1 by the residue",
                    "gini_freq_W_E > 0.5 and gini_freq_W_E_residue < 0.1",
                ),
            ),
            Figure("by the logarithm", "0.58", meets("gini_freq_W_E", Arm("all"), 0.575, 0.585), True),
            Figure("by the residue", "0.07", meets("gini_freq_W_E_residue", Arm("all"), 0.065, 0.075), True),
            Figure("keys", "4", meets("n_key_freqs_W_L", Arm("all"), 4, 4), True),
            Figure(
                "neurons of one frequency, of 512 (ours: that it explains over 85 % of)",
                "96.9 %, 496",
                meets("neurons_over_85", Arm("all"), 496, 496),
                True,
            ),
        ),
        ("gini_freq_W_E", "gini_freq_W_E_residue", "n_key_freqs_W_L", "neurons_over_85"),
    ),
    "edge_of_stability": Reproduction(
        "Prieto et al. 2025, arXiv 2501.04697",
        "Without decay rounding of the softmax stops learning before it generalises; StableMax and ⊥Grad prevent it.",
        "this project's transformer, beside the paper's MLP and transformer",
        (
            Figure(
                "training stops, the sooner the coarser the format: train loss at the end",
                "no figure",
                higher("train_loss", FLOAT16, EXACT),
            ),
            Figure(
                "⊥Grad without decay",
                "groks in the 300 epochs that the released scripts train (MLP)",
                happens_more("grokked_by", Arm("⊥Grad", "gradient_transform == 'orthograd'"), SOFTMAX),
            ),
            Figure(
                "StableMax without decay",
                "groks in the 80,000 epochs that the released scripts train (MLP)",
                happens_more("grokked_by", Arm("StableMax", "loss == 'stablemax'"), SOFTMAX),
            ),
            Figure("decay, with softmax", "groks", happens_more("grokked_by", DECAY, SOFTMAX)),
        ),
    ),
    "loss_precision": Reproduction(
        "Prieto et al. 2025, arXiv 2501.04697; Thilak et al. 2022, arXiv 2206.04817",
        "The coarser the loss's format, the sooner pairs lose their gradient; slingshots come long after memorising.",
        "this project's mainline at P = 53",
        (
            Figure(
                "training stops without decay: train loss at the end",
                "no figure",
                higher(
                    "train_loss",
                    Arm("bfloat16", f"loss == 'cross_entropy_bfloat16' and {NO_DECAY}"),
                    Arm("exact", f"loss == 'cross_entropy' and {NO_DECAY}"),
                ),
            ),
            Figure(
                "runs with slingshots",
                "seen with adaptive optimizers and no decay",
                holds(
                    Arm("float32 without decay", f"loss == 'cross_entropy_float32' and {NO_DECAY}"),
                    "have slingshots",
                    "slingshots > 0",
                ),
            ),
            Figure(
                "decay against none, all losses",
                "no figure",
                happens_more("grokked_by", DECAY, Arm("no decay", NO_DECAY)),
            ),
        ),
    ),
    "grokfast": Reproduction(
        "Lee et al. 2024, arXiv 2405.20233",
        "Amplifying the slow part of the gradient makes modular arithmetic grok sooner.",
        "this project's model in full batches; the paper's has two layers, LayerNorm and batches of 512",
        (
            Figure(
                "the filter against AdamW, each at its best decay and rate",
                "× 50.49 fewer iterations than Adam without decay",
                sooner(
                    Arm("filter", "gradient_transform == 'grokfast'"),
                    Arm("AdamW", "gradient_transform == 'none'"),
                    best_by=("weight_decay", "learning_rate"),
                ),
            ),
            Figure(
                "at the same decay and rate",
                "no figure",
                sooner(
                    Arm("filter", "gradient_transform == 'grokfast'"),
                    Arm("AdamW", "gradient_transform == 'none'"),
                    on=("weight_decay", "learning_rate", "seed"),
                ),
            ),
        ),
    ),
    "muon": Reproduction(
        "arXiv 2504.16041; arXiv 2608.07436",
        "Muon groks sooner than AdamW; over a long horizon its runs lose it again.",
        "the mainline's model and pairs",
        (
            Figure(
                "Muon, at its best step size, against AdamW",
                "102.89 epochs against 153.09 on average (2504.16041): × 1.49",
                sooner(
                    Arm("Muon", "optimizer == 'muon'"),
                    Arm("AdamW", "optimizer == 'adamw'"),
                    best_by=("muon_learning_rate",),
                ),
            ),
            Figure(
                "of runs that grok, those that lose it",
                "Muon 9 of 9, AdamW 4 of 5 seeds (2608.07436)",
                happens_more(
                    "lost_grokking_by",
                    Arm("Muon", "optimizer == 'muon'"),
                    Arm("AdamW", "optimizer == 'adamw'"),
                    among="grokked_by",
                ),
            ),
        ),
    ),
    "clock_pizza": Reproduction(
        "Zhong et al. 2023, arXiv 2306.17844",
        "Without attention models add by the pizza algorithm, with it by the clock.",
        "",
        (
            Figure(
                "gradient symmetricity",
                "medians 0.993 at attention rates up to 0.1, 0.466 above 0.9 (released table, 1,161 circular models)",
                higher("gradient_symmetricity", UNIFORM, ATTENTION),
            ),
            Figure(
                "distance irrelevance",
                "medians 0.253 up to 0.1, 0.830 above 0.9 (the same models)",
                higher("distance_irrelevance", ATTENTION, UNIFORM),
            ),
            Figure(
                "pizzas without attention",
                "symmetricity above 0.98, irrelevance below 0.6",
                holds(UNIFORM, "pizzas", PIZZA),
            ),
        ),
        ("gradient_symmetricity", "distance_irrelevance", "circularity"),
    ),
    "omnigrok": Reproduction(
        "Liu et al. 2023, arXiv 2210.01117",
        "Networks generalise in a zone of weight norms: above it, once decay or a constraint has brought them there.",
        "the mainline, with the released notebook's 15,000 steps",
        (
            Figure(
                "the largest initial scale, with decay against without",
                "never without decay, late with it; no step is printed",
                happens_more(
                    "grokked_by",
                    Arm("decay", f"weight_decay > 0 and {LARGEST}"),
                    Arm("none", f"{NO_DECAY} and norm_constraint == 'none' and {LARGEST}"),
                ),
            ),
            Figure(
                "no decay: norm held at 0.8 to 1 of the initial one against free",
                "at 0.8 test accuracy follows at once",
                happens_more("grokked_by", Arm("held", HELD), Arm("free", HELD.replace("'init'", "'none'"))),
            ),
            Figure(
                "norm held in the zone against held at the largest",
                "the zone generalises, above it memorises",
                happens_more(
                    "grokked_by", Arm("in the zone", HELD), Arm("largest", f"norm_constraint == 'init' and {LARGEST}")
                ),
            ),
        ),
    ),
    "label_noise": Reproduction(
        "Doshi et al. 2023, arXiv 2310.13061",
        "A network can learn wrong answers by heart and still generalise; regularisation makes it unlearn them.",
        "",
        (
            Figure(
                "wrong answers that are still given",
                "none under full inversion, all under coexistence (§3)",
                higher("corrupted_acc", KEEPS, FORGETS),
            ),
            Figure(
                "wrong answers that are put right",
                "all under full inversion (§3)",
                higher("corrupted_true_acc", FORGETS, KEEPS),
            ),
            Figure(
                "without decay both are there",
                "coexistence (§3)",
                holds(KEEPS, "train and test accuracy above 0.9", "train_acc > 0.9 and test_acc > 0.9"),
            ),
        ),
        ("corrupted_acc", "corrupted_true_acc"),
    ),
    "appendix_d": Reproduction(
        "Nanda et al. 2023, arXiv 2301.05217, App. D",
        "Grokking takes decay or dropout; an L1 penalty does not do; two layers grok as well.",
        "",
        (
            Figure("two layers", "grok", all_grok(Arm("two layers", "`model.n_layers` == 2"))),
            Figure(
                "dropout in place of decay against neither",
                "dropout 0.2 and 0.5 grok",
                happens_more(
                    "grokked_by",
                    Arm("dropout", "`model.dropout` > 0"),
                    Arm("neither", f"{NO_DECAY} and `model.dropout` == 0 and l1 == 0"),
                ),
            ),
            Figure(
                "an L1 penalty in place of decay",
                "does not grok",
                holds(Arm("L1", "l1 > 0"), "do not grok", "grokked_by != grokked_by"),
            ),
        ),
    ),
}
