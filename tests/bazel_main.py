"""Runs one test file under Bazel, which starts a program and not a test runner."""

import sys

import pytest

if __name__ == '__main__':
    sys.exit(pytest.main(['-p', 'no:cacheprovider', *sys.argv[1:]]))
