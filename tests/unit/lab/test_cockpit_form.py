"""The form of all settings: what it shows is declared, and what it refuses the settings refuse."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings

from colobench.errors import LocalError
from colobench.fields.part import settings_of
from colobench.lab.cockpit import form as form_module
from colobench.lab.cockpit.form import LEFT_OUT, FieldKind, SettingsForm
from colobench.settings.settings import Settings
from colobench.strategy.compatibility import REQUIREMENTS
from colobench.strategy.presets import PRESETS
from setting_values import BASES, settings_values
from share import amount


def option(form, name, text):
    """Give the option of a field whose text is this, or begins with it."""
    return next(each for each in form.field(name).options if each.text.startswith(text))


def error_of(settings, name, text):
    """Give the error that a value causes in some settings; empty if there is none."""
    try:
        settings.override(**{name: text})
    except LocalError as error:
        return str(error)
    return ""


def test_every_declared_setting_is_a_field_in_its_group():
    fields = SettingsForm().fields()
    declared = [each for each in settings_of(Settings) if each.name not in LEFT_OUT]
    assert [(each.name, each.title) for each in fields] == [(s.name, s.title) for s in declared]
    assert all(each.help for each in fields)


def test_a_new_setting_appears_by_itself(monkeypatch):
    seed = form_module._SETTINGS["seed"]
    more = form_module._SETTINGS | {"another": dataclasses.replace(seed, help="another seed")}
    monkeypatch.setattr(form_module, "_SETTINGS", more)
    assert [each.help for each in SettingsForm().fields() if "Another seed" in each.help]


@settings(max_examples=amount(5, 50))
@given(settings_values())
def test_the_texts_of_all_fields_make_the_same_settings_again(drawn):
    drawn = drawn.override(keep_records=None)
    form = SettingsForm()
    for each in SettingsForm(drawn).fields():
        form.choose(each.name, each.text)
    assert form.unread == {}
    assert form.usual.override_by(form.changes).as_json() == drawn.as_json()


@pytest.mark.parametrize("number", range(len(BASES)))
def test_an_option_is_refused_exactly_if_the_settings_refuse_it_and_with_their_words(number):
    form = SettingsForm(BASES[number])
    for field in form.fields():
        for each in field.options:
            error = error_of(BASES[number], field.name, each.text)
            if error and not each.refused:
                # A text that is only missing can still be written.
                assert error.startswith(("trace:", "disks:"))
            else:
                assert each.refused == error


def test_each_line_of_the_compatibility_matrix_greys_something_out():
    for line in REQUIREMENTS:
        form = SettingsForm()
        for other, value in ((line.other, line.accepted[0]), (line.axis, line.value)):
            # Whatever else the value needs comes first.
            for more in REQUIREMENTS:
                if (more.axis, more.value) == (other, value) and more is not line:
                    form.choose(more.other, more.accepted[0])
            form.choose(other, value)
        refused = [
            each
            for each in form.field(line.other).options
            if each.text.partition("+")[0] not in line.accepted and each.text != ""
        ]
        # A trigger of no other name is an accepted one.
        assert all(each.refused for each in refused), line


def test_a_field_of_which_nothing_can_be_changed_is_refused_as_a_whole():
    form = SettingsForm()
    reason = "compare: expected output compare, found buffer: nothing is compared"
    assert form.field("max_queue_size").refused == reason
    form.choose("output", "compare")
    assert form.field("max_queue_size").refused == ""


def test_a_guest_that_needs_a_trace_can_be_chosen_first_and_the_trace_after_it():
    form = SettingsForm()
    assert form.field("trace").refused
    assert option(form, "guest", "replay").refused == ""
    form.choose("guest", "replay")
    assert form.field("trace").error == form.error != ""
    assert form.field("trace").refused == ""
    form.choose("trace", "/somewhere/trace.npz")
    assert form.error == ""
    assert form.settings().guest.trace == "/somewhere/trace.npz"


def test_a_text_that_is_no_value_is_kept_with_its_error_until_it_is_one():
    form = SettingsForm()
    form.choose("ram", "lots")
    field = form.field("ram")
    assert (field.text, field.kind) == ("lots", FieldKind.TEXT)
    assert field.error.startswith("ram: ")
    with pytest.raises(LocalError, match="ram: "):
        form.settings()
    form.choose("ram", "16M")
    assert form.settings().guest.ram_bytes == 16 << 20


def test_the_empty_text_of_a_derived_setting_derives_it_anew():
    form = SettingsForm()
    form.choose("transport", "multifd+unix")
    form.choose("multifd_channels", "3")
    form.choose("multifd_channels", "")
    assert "multifd_channels" not in form.changes
    assert form.field("multifd_channels").empty.startswith("by itself: ")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_chosen_whole_and_recognized(name):
    form = SettingsForm()
    form.choose_preset(name)
    assert form.preset() == name
    form.reset()
    assert form.settings().as_json() == Settings().as_json()


def test_a_name_of_no_setting_is_refused():
    with pytest.raises(LocalError, match="expected the name of one"):
        SettingsForm().choose("colour", "red")


def test_a_number_loses_its_point_and_the_name_of_a_file_does_not():
    form = SettingsForm()
    form.choose("guest", "replay")
    form.choose("trace", "/a/b.0")
    assert form.field("trace").text == "/a/b.0"


def test_records_that_a_run_would_drop_cannot_be_chosen():
    with pytest.raises(LocalError, match="expected the name of one, found 'keep_records'"):
        SettingsForm().choose("keep_records", "10")
    with pytest.raises(LocalError, match="keep_records: expected none"):
        SettingsForm(Settings().override(keep_records=10))
