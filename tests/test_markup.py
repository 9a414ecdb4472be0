"""HTML in which text cannot become markup."""

import html
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from grokjax.report import markup


@given(st.text())
def test_embedded_data_has_no_character_that_html_reads(text):
    embedded = markup.embedded({text: [text]})
    assert not set("<>&") & set(embedded)
    assert json.loads(embedded) == {text: [text]}


def test_none_and_false_are_no_attributes_and_true_is_a_bare_one():
    assert markup.element("rect", x=0, y=0.0, rx=None, hidden=True, open=False) == '<rect x="0" y="0.0" hidden></rect>'


@given(st.text(alphabet="<>&\"' a/"))
def test_an_element_escapes_what_is_not_html(text):
    made = markup.element("a", text, title=text)
    assert html.unescape(re.fullmatch(r'<a title="([^"<>]*)">([^<>]*)</a>', made)[2]) == text
