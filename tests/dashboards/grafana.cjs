// Holds a Grafana dashboard to the types that Grafana publishes for it (npm: @grafana/schema), by the TypeScript compiler.
// Not Grafana itself: nothing is imported or drawn.
// Usage: ROENTGEN_DASHBOARDS=FOLDER node tests/dashboards/grafana.cjs DASHBOARD.json
//
// Prints each complaint and ends with 1 where there is one.
'use strict';
const fs = require('fs');
const path = require('path');

const modules = path.join(process.env.ROENTGEN_DASHBOARDS, 'node_modules');
const ts = require(path.join(modules, 'typescript'));
const schema = path.join(modules, '@grafana/schema/dist/types');

const dashboard = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const panels = [...new Set(dashboard.panels.map(panel => panel.type))];
// Kinds of panels whose fields have settings of their own.
const FIELDS = ['table', 'timeseries'];

const lines = [
    `import type { Dashboard, FieldConfigSource } from '${schema}/index';`,
    ...panels.map(kind => `import type * as ${kind} from '${schema}/raw/composable/${kind}/panelcfg/x/types.gen';`),
    // Grafana's JSON has the values of its enumerations where its types have their names.
    'type Loose<T> = 0 extends 1 & T ? T : unknown extends T ? T : T extends string ? `${T}` : T extends number ? number',
    '    : T extends boolean | null | undefined ? T : T extends (infer U)[] ? Loose<U>[]',
    '    : T extends object ? { [K in keyof T]: Loose<T[K]> } : T;',
    `export const dashboard: Loose<Dashboard> = ${JSON.stringify(dashboard, null, 1)};`,
];
dashboard.panels.forEach((panel, i) => {
    const options = JSON.stringify(panel.options, null, 1);
    // An option that a kind does not know would be dropped by Grafana without a word.
    lines.push(`export const options${i}: Loose<${panel.type}.Options> = ${options};`);
    if (FIELDS.includes(panel.type)) {
        const fields = JSON.stringify(panel.fieldConfig.defaults.custom, null, 1);
        lines.push(`export const fields${i}: Loose<${panel.type}.FieldConfig> = ${fields};`);
    }
});

const name = path.join(__dirname, 'dashboard.ts');
const settings = {
    strict: true, noEmit: true, skipLibCheck: true, types: [],
    target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
};
const host = ts.createCompilerHost(settings);
const { getSourceFile, fileExists } = host;
const source = ts.createSourceFile(name, lines.join('\n'), settings.target, true);
host.getSourceFile = (file, ...rest) => file === name ? source : getSourceFile.call(host, file, ...rest);
host.fileExists = file => file === name || fileExists.call(host, file);
const complaints = ts.getPreEmitDiagnostics(ts.createProgram([name], settings, host));
for (const complaint of complaints) {
    const line = complaint.file === source ? source.getLineAndCharacterOfPosition(complaint.start).line : 0;
    const where = source.text.split('\n')[line].trim();
    console.log(`${where}: ${ts.flattenDiagnosticMessageText(complaint.messageText, ' ')}`);
}
process.exit(complaints.length > 0 ? 1 : 0);
