"""LICENSE-WEIGHTS.md and MODEL_CARD.md of imported weights, with {files}, {title} ... to be filled in."""

from __future__ import annotations

TERMS_OF_THE_SIX = """# Terms of these weights

These weights are not neuromend's. They were imported, number by number unchanged, from
{files}.

If that is what is published on the Hugging Face Hub under {hub}, it was trained by the authors of "Denoising
Diffusion Models for 3D Healthy Brain Tissue Inpainting" (Durrer et al. 2024, arXiv 2403.14499), who release it under
the MIT licence: you may use, change and pass on the weights; keep their copyright and permission notice, which
stands on that page, with every copy; there is no warranty. Please cite their paper.

If it came from somewhere else, or if you trained it yourself, the terms of its owner hold. neuromend did not
and cannot check which of the two is the case.
"""

TERMS_UNKNOWN = """# Terms of these weights

These weights are not neuromend's. They were imported, number by number unchanged, from
{files}.

The terms of their owner hold; neuromend does not know them. If they are those of the authors of "fastWDM3D" (Durrer
et al. 2025, arXiv 2507.13146), look at the page that you fetched them from, and cite their paper.
"""

CARD = """# {title}, imported

Weights of the published model {title}, as method `{method}`, from
{files}.

- Whose: see LICENSE-WEIGHTS.md.
- Trained by them on: T1-weighted scans of the BraTS inpainting challenge, skull-stripped, 1 mm, with tumours.
- Not checked by us: how good the fills are. The arithmetic of the network is checked (`neuromend parity`).
- How the method differs from the published code: docs/methods/{method}.md.
- Fills are synthetic tissue, not for diagnosis.
"""
