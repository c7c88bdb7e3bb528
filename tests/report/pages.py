"""A report's page, taken apart."""

import re
from html.parser import HTMLParser

VOID = {'meta', 'link', 'img', 'br', 'input', 'hr'}


class Page(HTMLParser):
    """A page taken apart; finding it badly nested is an error."""

    def __init__(self, text):
        super().__init__()
        self.source, self.open, self.elements, self.text, self.values = text, [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f'never closed: {self.open}'

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f'an attribute twice: {attributes}'
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert 'svg' in self.open, f'<{tag}/> in HTML'
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f'</{tag}> closes {self.open[-3:]}'
        self.open.pop()

    def handle_data(self, data):
        if not {'style', 'script', 'svg'} & set(self.open):
            self.text.append(data)
            if self.open and self.open[-1] == 'data':
                self.values.append((float(self.of('data')[-1]['value']), data))

    def columns(self):
        return re.findall(r'<th scope="col">([^<]*)', self.source)

    def of(self, tag):
        """Attributes of every element of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def shown(self):
        return re.sub(r'\s+', ' ', ' '.join(self.text))
