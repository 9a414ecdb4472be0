"""Wrong answers among the training pairs: learnt by heart, or corrected (Doshi et al. 2023, arXiv 2310.13061)?

The claims, on the quadratic MLP of Gromov 2023 (arXiv 2301.02679) with a share of the training answers drawn anew: it
can learn the wrong answers by heart and still answer the test pairs right (coexistence); decay makes it unlearn the
wrong answers after it has generalised, some (partial inversion) or all (full inversion), and the training accuracy then
falls to one minus the share; too few pairs or too many wrong answers leave memorising alone.

    python launch.py --config=experiments/label_noise.py       --workdir=results/label_noise

Without the colon: P = 97, one-hot tokens, 500 neurons, MSE, AdamW at 1e-2, 2 000 steps, decays 0, 5, 15 and 20, over 17
shares of the pairs and 17 of noise, as in the paper; ends of both axes, β₂ and the initial scale are this project's. It
has not been run; `--plan=measure` says what it takes on a machine.

    python launch.py --config=experiments/label_noise.py:small --workdir=results/label_noise_small

trains 40 and 70 % of the pairs at P = 53 with 10 and 40 % of noise and decays 0, 3 and 10, 256 neurons, 1 000 steps,
three seeds each: 36 runs in 2 minutes and 16 seconds of processor time, compilation included, on two cores of an AMD
EPYC. The claims hold there. At the last evaluation, from the least to the most of three runs:

    pairs   noise   decay   test pairs right   wrong answers: learnt   corrected
     40 %    10 %       0          4 –   6 %           100 %               0 %      memorised
                        3        100 %                 100 %               0 %      coexistence
                       10        100 %                   0 %             100 %      full inversion
     40 %    40 %       0          1 –   2 %           100 %               0 %      memorised
                        3          3 –   4 %           100 %               0 %      memorised
                       10          7 –   9 %           100 %               0 %      memorised
     70 %    10 %       0         97 –  98 %            95 –  98 %     2 –   5 %    coexistence
                        3        100 %                  22 –  29 %    71 –  78 %    partial inversion
                       10        100 %                   0 %             100 %      full inversion
     70 %    40 %       0         57 –  67 %           100 %               0 %      between both
                        3         93 –  95 %           100 %               0 %      coexistence
                       10        100 %                  16 –  19 %    81 –  84 %    partial inversion

At 40 % of the pairs, 10 % of noise and a decay of 10, 96 to 99 % of the wrong answers are learnt, and then unlearnt.
`test_acc`, `corrupted_acc` and `corrupted_true_acc` are the three columns; `grokjax figure DIR --kind=column
--column=corrupted_acc` draws one over the steps. `train_acc`, and with it memorised, is by the answers trained on.
"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/label_noise.py", arg, ["small"])
    c = config.small() if arg else config.default()
    c.model.architecture, c.model.inputs, c.model.act = "mlp", "one_hot", "quadratic"
    c.loss, c.learning_rate = "mse", 1e-2
    c.measures = ()  # beside the columns of label noise, and of the loss
    if arg:
        c.model.d_mlp, c.steps = 256, 1_000
        c.sweep.train_fraction, c.sweep.label_noise = (0.4, 0.7), (0.1, 0.4)
        c.sweep.weight_decay = (0.0, 3.0, 10.0)
        c.sweep.seed = (0, 1, 2)
    else:
        c.p, c.model.d_mlp, c.steps = 97, 500, 2_000
        c.sweep.train_fraction = tuple(round(0.05 * i, 2) for i in range(2, 19))  # 0.1 to 0.9
        c.sweep.label_noise = tuple(round(0.05 * i, 2) for i in range(17))  # 0 to 0.8
        c.sweep.weight_decay = (0.0, 5.0, 15.0, 20.0)
    return c
