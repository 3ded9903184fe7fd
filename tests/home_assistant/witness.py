"""A real Home Assistant, without its pages: its core and its MQTT integration, which discover boxes at a broker.

Usage: witness.py FOLDER PORT     FOLDER is where it may keep what it keeps; PORT the broker's on 127.0.0.1.
       witness.py --check         exits 0 if it can be imported, and prints its version.
It says "ready", and then obeys a line at a time, answering each with a line of JSON:
    states                        every entity: {"entity_id": {"state": …, "attributes": {…}}}
    call DOMAIN SERVICE ENTITY    calls a service on an entity: true, or what went wrong
    quit                          sends its last will and ends
What it warns of goes to standard error.
"""

import asyncio
import json
import logging
import pathlib
import sys
from types import MappingProxyType

from homeassistant import bootstrap, config_entries, const, core, loader
from homeassistant.components.mqtt import CONFIG_ENTRY_VERSION, CONFIG_ENTRY_MINOR_VERSION
from homeassistant.setup import async_setup_component


async def start(folder, port):
    # Nobody has configured anything.
    pathlib.Path(folder, "configuration.yaml").touch()
    hass = core.HomeAssistant(folder)
    hass.config.skip_pip = True
    loader.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await loader.async_get_custom_components(hass)
    await bootstrap.async_load_base_functionality(hass)
    assert await async_setup_component(hass, "homeassistant", {})
    # It would serve pages and take uploaded certificates with these: nothing of that is wanted here.
    hass.config.components.update({"http", "file_upload"})
    await hass.async_start()
    entry = config_entries.ConfigEntry(
        domain="mqtt",
        title="broker",
        version=CONFIG_ENTRY_VERSION,
        minor_version=CONFIG_ENTRY_MINOR_VERSION,
        data={"broker": "127.0.0.1", "port": port, "discovery": True},
        options={},
        source=config_entries.SOURCE_USER,
        unique_id=None,
        discovery_keys=MappingProxyType({}),
        subentries_data=(),
    )
    await hass.config_entries.async_add(entry)
    assert entry.state is config_entries.ConfigEntryState.LOADED, entry.state
    return hass


async def obey(hass, words):
    if words[0] == "states":
        states = hass.states.async_all()
        return {one.entity_id: {"state": one.state, "attributes": dict(one.attributes)} for one in states}
    domain, service, entity = words[1:]
    try:
        await hass.services.async_call(domain, service, {"entity_id": entity}, blocking=True)
    except Exception as error:  # noqa: BLE001
        return repr(error)
    return True


async def main():
    hass = await start(sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    while True:
        line = await hass.loop.run_in_executor(None, sys.stdin.readline)
        words = line.split()
        if not words or words[0] == "quit":
            break
        print(json.dumps(await obey(hass, words), default=str), flush=True)
    await hass.async_stop(force=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        print(const.__version__)
    else:
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
        asyncio.run(main())
