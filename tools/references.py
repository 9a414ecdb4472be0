"""The list of papers in docs/references.md: what the code cites, in the code's own words, with the full reference."""

import re

from benchmarks.markdown import table
from grokjax.errors import InputError
from tools.blocks import ROOT

# An author and a year, or a number of arXiv that has no other key.
CITED = re.compile(r"[A-Z][a-z]+(?:(?: &| and) [A-Z][a-z]+| et al\.)? (?:19|20)\d\d\b|arXiv \d{4}\.\d{5}")

PAPERS = {
    "Nanda et al. 2023": "Nanda, Chan, Lieberum, Smith, Steinhardt. Progress measures for grokking via mechanistic "
    "interpretability. ICLR 2023, arXiv 2301.05217",
    "Power et al. 2022": "Power, Burda, Edwards, Babuschkin, Misra. Grokking: generalization beyond overfitting on "
    "small algorithmic datasets. arXiv 2201.02177",
    "Hurley & Rickard 2009": "Hurley, Rickard. Comparing measures of sparsity. IEEE Transactions on Information "
    "Theory 55",
    "Liu et al. 2022": "Liu, Kitouni, Nolte, Michaud, Tegmark, Williams. Towards understanding grokking: an effective "
    "theory of representation learning. arXiv 2205.10343",
    "Zhong et al. 2023": "Zhong, Liu, Tegmark, Andreas. The clock and the pizza. arXiv 2306.17844",
    "Liu et al. 2023": "Liu, Michaud, Tegmark. Omnigrok: grokking beyond algorithmic data. ICLR 2023, arXiv 2210.01117",
    "Chughtai et al. 2023": "Chughtai, Chan, Nanda. A toy model of universality: reverse engineering how networks "
    "learn group operations. arXiv 2302.03025",
    "Varma et al. 2023": "Varma, Shah, Kenton, Kramár, Kumar. Explaining grokking through circuit efficiency. arXiv "
    "2309.02390",
    "Prieto et al. 2025": "Prieto, Barsbey, Mediano, Birdal. Grokking at the edge of numerical stability. arXiv "
    "2501.04697",
    "Lee et al. 2024": "Lee, Kang, Kim, Lee. Grokfast: accelerated grokking by amplifying slow gradients. arXiv "
    "2405.20233",
    "Jordan et al. 2024": "Jordan, Jin, Boza, You, Cesista, Newhouse, Bernstein. Muon: an optimizer for hidden layers "
    "in neural networks. kellerjordan.github.io/posts/muon",
    "Humayun et al. 2024": "Humayun, Balestriero, Baraniuk. Deep networks always grok and here is why. arXiv "
    "2402.15555",
    "Doshi et al. 2023": "Doshi, Das, He, Gromov. To grok or not to grok: disentangling generalization and "
    "memorization on corrupted algorithmic datasets. arXiv 2310.13061",
    "Gromov 2023": "Gromov. Grokking modular arithmetic. arXiv 2301.02679",
    "Cohen et al. 2021": "Cohen, Kaur, Li, Kolter, Talwalkar. Gradient descent on neural networks typically occurs at "
    "the edge of stability. ICLR 2021, arXiv 2103.00065",
    "Hutchinson 1990": "Hutchinson. A stochastic estimator of the trace of the influence matrix for Laplacian "
    "smoothing splines. Communications in Statistics: Simulation and Computation 19",
    "Roy & Vetterli 2007": "Roy, Vetterli. The effective rank: a measure of effective dimensionality. EUSIPCO 2007",
    "Kaplan & Meier 1958": "Kaplan, Meier. Nonparametric estimation from incomplete observations. Journal of the "
    "American Statistical Association 53",
    "arXiv 2605.20441": "Verma. arXiv 2605.20441 (attention-head similarity, entropy spread, critical weight decay)",
    "arXiv 2606.18465": "arXiv 2606.18465 (logit scale)",
    "arXiv 2607.06639": "arXiv 2607.06639 (effective rank)",
    "arXiv 2605.06152": "arXiv 2605.06152 (numerical-feature inflation)",
}


def cited() -> set[str]:
    """The keys of all papers that the package's code cites."""
    code = "\n".join(path.read_text() for path in sorted((ROOT / "grokjax").rglob("*.py")))
    found = {re.sub(" and ", " & ", key) for key in CITED.findall(code)}
    return {_key(key) for key in found if not re.match("(Commit|Version|Python|January|June) ", key)}


def _key(cited: str) -> str:
    """A paper's key, where it is cited by its number instead."""
    return next((key for key, paper in PAPERS.items() if cited.startswith("arXiv") and cited in paper), cited)


def references() -> str:
    """The table of papers that the code cites.

    Raises:
      InputError: the code cites one that is not in `PAPERS`, or none cites one that is.
    """
    found = cited()
    if unknown := found - PAPERS.keys():
        raise InputError(f"the code cites {', '.join(sorted(unknown))}: give the reference in tools/references.py.")
    if idle := PAPERS.keys() - found:
        raise InputError(f"tools/references.py has {', '.join(sorted(idle))}, which no code cites: take it out.")
    return table(["key", "paper"], [[key, paper] for key, paper in PAPERS.items()])
